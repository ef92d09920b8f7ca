"""`cotenant loadtest`, and `python -m cotenant_loadtests`. Parses, calls, prints; light to import.

run_command.py       run              cli_options.py   options that commands share
cli_comparisons.py   compare, find-capacity, fairness, coldstart, soak
setting_up.py        what comes before a run, for all of them
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cotenant_loadtests.cli_comparisons import add_comparisons
from cotenant_loadtests.cli_options import (
    Out,
    Permitted,
    Processes,
    Quiet,
    Scenarios,
    Seed,
    Settings,
    Url,
    choices_of,
)
from cotenant_loadtests.endings import coded, ending
from cotenant_loadtests.exit_codes import EXIT_INTERRUPTED
from cotenant_loadtests.keys import NoLocalKeys


class Requests(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"
    NONE = "none"


class Document(StrEnum):
    SCENARIO = "scenario"
    RESULTS = "results"


class _Group(TyperGroup):
    """What goes wrong has a code of its own, under whichever command this is: 1 and 2 are verdicts on a target."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with coded():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with coded():
            return super().invoke(ctx)


def make_app() -> typer.Typer:
    """The commands. Another callback may put `LocalKeys` of a gateway on this machine into `context.obj`."""
    app = typer.Typer(
        name="loadtest",
        help="Load any OpenAI- or OIP-compatible endpoint: many tenants, many models, open loop.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        cls=_Group,
    )

    @app.callback()
    def use(context: typer.Context) -> None:
        context.obj = NoLocalKeys()

    for command in (run, scenarios, report, schema):
        app.command()(ending(command))
    add_comparisons(app)
    return app


def run(
    context: typer.Context,
    scenario: Scenarios,
    url: Url = None,
    settings: Settings = None,
    seed: Seed = None,
    processes: Processes = None,
    plan: Annotated[
        Path | None, typer.Option(help="Write the plan to this file (`-`: stdout), and send nothing.")
    ] = None,
    from_plan: Annotated[
        Path | None,
        typer.Option(help="Send exactly this plan, of the scenario's duration_s; the scenario says the rest."),
    ] = None,
    out: Out = None,
    requests: Annotated[Requests, typer.Option(help="Format of the table of requests.")] = Requests.CSV,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Send a scenario's requests, and say what became of them: terminal, report.html, results.json, JUnit XML."""
    from cotenant_loadtests.run_command import RunWishes, run_scenario

    wishes = RunWishes(plan_file=plan, from_plan=from_plan, out=out, requests=requests, quiet=quiet)
    return run_scenario(choices_of(context), wishes, context.obj)


def scenarios() -> int:
    """List the scenarios that come with cotenant."""
    from cotenant_loadtests.reading import read_scenario
    from cotenant_loadtests.shipped import shipped_scenarios
    from cotenant_loadtests.terminal import print_table

    about = {name: read_scenario(path).about for name, path in shipped_scenarios().items()}
    print_table(("SCENARIO", "WHAT"), [(name, text.partition("\n")[0]) for name, text in sorted(about.items())])
    return 0


def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results.json.")],
    out: Annotated[Path | None, typer.Option(help="The page. Default: report.html beside the results.")] = None,
) -> int:
    """Draw the report of a run again."""
    from cotenant_loadtests.refusals import RefusedError
    from cotenant_loadtests.report import write_report
    from cotenant_loadtests.results_file import ResultsFileError, read_results
    from cotenant_loadtests.setting_up import readable
    from cotenant_loadtests.terminal import say

    if results.is_dir():
        raise RefusedError(f"{results} is a folder; give the file in it: {results / 'results.json'}")
    page = out or results.with_name("report.html")
    with readable(results):
        found = read_results(results)
    try:
        with readable(page):
            write_report(page, found)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as problem:
        raise ResultsFileError(
            f"reading {results}: no report can be drawn of it, because its figures do not go together "
            f"({type(problem).__name__}: {problem}); name a results.json as `cotenant loadtest` wrote it"
        ) from problem
    say(str(page))
    return 0


def schema(
    document: Annotated[Document, typer.Argument(help="`scenario` or `results`.")] = Document.SCENARIO,
) -> int:
    """Print the JSON Schema of a scenario, for editors, or of results.json."""
    from cotenant_loadtests.schemas import schema_text

    sys.stdout.write(schema_text(document))
    return 0


def main() -> int:
    """Entry point of `python -m cotenant_loadtests`: the exit status."""
    try:
        result = make_app()(prog_name="python -m cotenant_loadtests", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0
