"""`compare`, `find-capacity`, `fairness`, `coldstart`, `soak`: their options. Light to import.

Those that the commands share are read off the context (cli_options.py).

Each command's work is in a module of its own, COMMAND_command.py, which decides nothing: that is in COMMAND.py.
"""

from typing import Annotated

import typer

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
    wishes_of,
)
from cotenant_loadtests.endings import ending

ROUNDS = 6
"""The fewest for an interval of 95 %: see paired.py, which is not light."""


MOST_ROUNDS = 1000
"""More is a slip: of a scenario of a minute it is a day and a half."""


def add_comparisons(app: typer.Typer) -> None:
    """The context's object is a LocalKeys."""
    for name, command in (
        ("compare", compare),
        ("find-capacity", find_capacity),
        ("fairness", fairness),
        ("coldstart", coldstart),
        ("soak", soak),
    ):
        app.command(name)(ending(command))


def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A URL, or a scenario.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A URL, or a scenario.")],
    scenario: Annotated[str | None, typer.Option(help="What is sent to URLs.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=MOST_ROUNDS, help="Runs of each, in turn.")] = ROUNDS,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Exit 1 when shown, such as 'ttft_p99_ms > 1.1'. Repeatable."),
    ] = None,
    settings: Settings = None,
    seed: Seed = None,
    processes: Processes = None,
    out: Out = None,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Measure A and B in turn: the ratio of each figure with its interval, or that no difference is shown."""
    from cotenant_loadtests.compare_command import compare_two

    return compare_two(
        {"a": a, "b": b},
        choices_of(context),
        wishes_of(context),
        context.obj,
        rounds=rounds,
        fail_if=fail_if or (),
    )


def find_capacity(
    context: typer.Context,
    scenario: Scenarios,
    from_per_s: Annotated[
        float | None, typer.Option("--from", min=0.001, help="First rate, requests/s. Default: the scenario's.")
    ] = None,
    to_per_s: Annotated[
        float | None, typer.Option("--to", min=0.001, help="Highest rate. Default: double until one misses.")
    ] = None,
    within: Annotated[float, typer.Option(min=0.001, max=1, help="How close to go, as a share of the rate.")] = 0.05,
    repeats: Annotated[int, typer.Option(min=1, help="Runs at each rate; more than half must keep the SLOs.")] = 2,
    url: Url = None,
    settings: Settings = None,
    seed: Seed = None,
    processes: Processes = None,
    out: Out = None,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Search the largest rate at which a scenario keeps its SLOs."""
    from cotenant_loadtests.capacity_command import find

    return find(
        choices_of(context),
        wishes_of(context),
        context.obj,
        from_per_s=from_per_s,
        to_per_s=to_per_s,
        within=within,
        repeats=repeats,
    )


def fairness(
    context: typer.Context,
    scenario: Scenarios,
    light: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TENANT", help="Also measured alone. Repeatable. Default: who offers less than 1/n of the tokens."
        ),
    ] = None,
    url: Url = None,
    settings: Settings = None,
    seed: Seed = None,
    processes: Processes = None,
    out: Out = None,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Measure all tenants together and the light ones alone: what do the others cost them?"""
    from cotenant_loadtests.fairness_command import look

    return look(choices_of(context), wishes_of(context), context.obj, light=light or ())


def coldstart(
    context: typer.Context,
    scenario: Scenarios,
    times: Annotated[int, typer.Option(min=1, help="Wakes of each model.")] = 5,
    model: Annotated[
        list[str] | None, typer.Option(help="Of the plan's models, only this. Repeatable. Default: all.")
    ] = None,
    idle_s: Annotated[
        float | None,
        typer.Option("--idle-s", min=0, help="Take a model for cold after so long. Default: when cotenant says so."),
    ] = None,
    patience_s: Annotated[
        float, typer.Option("--patience-s", min=1, help="Give up on a model that is not cold by then.")
    ] = 900.0,
    url: Url = None,
    settings: Settings = None,
    seed: Seed = None,
    out: Out = None,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Measure zero → first token: wait until a model is cold, send one request of the scenario, many times."""
    from cotenant_loadtests.coldstart_command import wake

    return wake(
        choices_of(context),
        wishes_of(context),
        context.obj,
        times=times,
        models=model or (),
        idle_s=idle_s,
        patience_s=patience_s,
    )


def soak(
    context: typer.Context,
    scenario: Scenarios,
    hours: Annotated[float, typer.Option(min=0.0001, help="How long.")],
    url: Url = None,
    settings: Settings = None,
    seed: Seed = None,
    processes: Processes = None,
    out: Out = None,
    permitted: Permitted = None,
    quiet: Quiet = False,
) -> int:
    """Repeat a scenario for hours: do latency and memory drift?"""
    from cotenant_loadtests.soak_command import run

    return run(choices_of(context), wishes_of(context), context.obj, hours=hours)
