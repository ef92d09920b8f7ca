"""The `cotenant` command. Parses, calls, prints.

Exit codes: 0 done, 1 failed, 2 a mistake in files or flags, 3 a model was refused.

Everything heavy is imported by the command that needs it, so that `cotenant --help` is quick.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cotenant_operator.objects import World
    from cotenant_operator.planned import Plan
    from cotenant_serving.contract import PoolStatus

EXIT_FAILED = 1
EXIT_MANIFESTS = 2
EXIT_REFUSED = 3

app = typer.Typer(
    name="cotenant",
    help="Many tenants and many models on the same GPUs: admitted, guarded, fair, and fast to wake.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
get_app = typer.Typer(help="Show what runs: models, tenants, pools.", no_args_is_help=True)
explain_app = typer.Typer(help="Say why something is where it is.", no_args_is_help=True)
app.add_typer(get_app, name="get")
app.add_typer(explain_app, name="explain")


class PlanOutput(StrEnum):
    TABLE = "table"
    JSON = "json"


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Files = Annotated[list[Path], typer.Option("--file", "-f", help="YAML file, or a folder of them. Repeatable.")]
State = Annotated[
    Path | None,
    typer.Option("--state", help="State directory. Default: $COTENANT_STATE or ~/.local/state/cotenant."),
]
Shown = Annotated[Output, typer.Option("--output", "-o", help="Format.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")]


def default_state() -> Path:
    """$COTENANT_STATE, else ~/.local/state/cotenant."""
    given = os.environ.get("COTENANT_STATE")
    return Path(given).expanduser() if given else Path.home() / ".local" / "state" / "cotenant"


def main() -> int:
    """Entry point of the console script: the exit status."""
    from cotenant_operator.output import error

    try:
        result = app(standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
        return EXIT_FAILED
    except Exception as problem:
        show = getattr(problem, "format_message", None)  # a mistake in the flags
        if show is None:
            raise
        error(show() + " (see `cotenant --help`)")
        return EXIT_MANIFESTS
    return result if isinstance(result, int) else 0


@app.command()
def up(
    file: Files,
    host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = "127.0.0.1",
    port: Port = 8080,
    state: State = None,
) -> int:
    """Serve the models of these files on this machine, until Ctrl-C."""
    from cotenant_operator.local import up as run
    from cotenant_operator.manifests import ManifestErrors
    from cotenant_operator.output import error

    try:
        return run(file, host=host, port=port, state=state or default_state())
    except ManifestErrors as problems:
        error(str(problems))
        return EXIT_MANIFESTS


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Run through it once and exit.")] = False,
    port: Port = 8080,
    state: State = None,
) -> int:
    """Watch two tenants share one device, with models that come with cotenant."""
    from cotenant_operator.demo import run

    return int(run(once=once, port=port, state=state or default_state() / "demo"))


@app.command()
def plan(
    file: Files,
    output: Annotated[PlanOutput, typer.Option("--output", "-o", help="Format.")] = PlanOutput.TABLE,
    state: State = None,
) -> int:
    """Say what would run where, who would see it, and what is refused and why. Changes nothing."""
    from cotenant_operator.manifests import ManifestErrors
    from cotenant_operator.output import error
    from cotenant_operator.world import read_world

    try:
        world = read_world(file, (state or default_state()) / "cache")
    except ManifestErrors as problems:
        error(str(problems))
        return EXIT_MANIFESTS
    return _print_plan(_plan_here(world), output)


def _plan_here(world: "World") -> "Plan":
    from cotenant_operator.machine import default_pool, device_memory
    from cotenant_operator.plan import plan as make_plan

    if not world.manifests.pools:
        world = world.with_pool(default_pool())
    return make_plan(world, {pool.metadata.name: device_memory(pool) for pool in world.manifests.pools})


def _print_plan(planned: "Plan", output: PlanOutput) -> int:
    from cotenant_operator.output import as_json, error, print_table, warning
    from cotenant_operator.plan_report import plan_document, plan_rows

    if output is PlanOutput.JSON:
        sys.stdout.write(as_json(plan_document(planned)))
    else:
        print_table(*plan_rows(planned))
    for text in planned.warnings:
        warning(text)
    for text in planned.errors:
        error(text)
    if planned.errors:
        return EXIT_MANIFESTS
    return EXIT_REFUSED if any(model.refusal for model in planned.models) else 0


@get_app.command("models")
def get_models(state: State = None, output: Shown = Output.TABLE) -> int:
    """Models with their state, reason and engines."""
    from cotenant_operator.status import model_rows

    status = _status(state)
    if status is None:
        return EXIT_FAILED
    return _show(model_rows(status, wide=output is Output.WIDE), _builtins(status.models), output)


@get_app.command("pools")
def get_pools(state: State = None, output: Shown = Output.TABLE) -> int:
    """Devices with their memory: all, reserved, in use."""
    from cotenant_operator.status import pool_rows

    status = _status(state)
    if status is None:
        return EXIT_FAILED
    document = [{"pool": status.pool, "generation": status.generation, "devices": _builtins(status.devices)}]
    return _show(pool_rows(status), document, output)


@get_app.command("tenants")
def get_tenants(state: State = None, output: Shown = Output.TABLE) -> int:
    """Tenants with the models they see and their limits. Keys are never shown."""
    from cotenant_operator.output import error
    from cotenant_operator.tenants_report import TenantsUnknownError, read_tenants, tenant_document, tenant_rows

    try:
        tenants = read_tenants(state or default_state())
    except TenantsUnknownError as problem:
        error(str(problem))
        return EXIT_FAILED
    return _show(tenant_rows(tenants), tenant_document(tenants), output)


@explain_app.command("model")
def explain(name: Annotated[str, typer.Argument(help="name, or namespace/name.")], state: State = None) -> int:
    """Say why a model is where it is, from the conductor's last decision."""
    from cotenant_operator.near import hint
    from cotenant_operator.output import error
    from cotenant_operator.status import explain_model

    status = _status(state)
    if status is None:
        return EXIT_FAILED
    found = [model for model in status.models if name in (model.model, model.model.rpartition("/")[2])]
    if not found:
        error(f"there is no model {name!r}; {hint(name, [model.model for model in status.models], label='known')}")
        return EXIT_FAILED
    if len(found) > 1:
        error(f"{name!r} is ambiguous; say one of: {', '.join(model.model for model in found)}")
        return EXIT_FAILED
    typer.echo("\n".join(explain_model(found[0])))
    return 0


@app.command()
def version() -> int:
    """Print the version."""
    from importlib.metadata import version as version_of

    typer.echo(f"cotenant {version_of('cotenant')}")
    return 0


def _status(state: Path | None) -> "PoolStatus | None":
    """What the conductor sees, or None after the reason was printed."""
    from cotenant_operator.control import ControlClient, ControlError
    from cotenant_operator.output import error

    try:
        return ControlClient.of_state(state or default_state()).status()
    except (ControlError, OSError) as problem:
        error(str(problem))
        return None


def _builtins(value: object) -> object:
    import msgspec

    return msgspec.to_builtins(value)


def _show(
    table: tuple[tuple[str, ...], list[tuple[str, ...]]],
    document: object,
    output: Output,
) -> int:
    from cotenant_operator.output import as_json, as_yaml, print_table

    if output is Output.JSON:
        sys.stdout.write(as_json(document))
    elif output is Output.YAML:
        sys.stdout.write(as_yaml(document))
    else:
        print_table(*table)
    return 0
