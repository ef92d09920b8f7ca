"""`cotenant get` and `cotenant explain`: what runs, and why it is where it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import EXIT_FAILED, Output, Shown, State, default_state, show

if TYPE_CHECKING:
    from cotenant_serving.contract import PoolStatus


def get_models(state: State = None, output: Shown = Output.TABLE) -> int:
    """Models with their state, reason and engines."""
    from cotenant_operator.status import model_rows

    status = _status(state)
    if status is None:
        return EXIT_FAILED
    return show(model_rows(status, wide=output is Output.WIDE), _builtins(status.models), output)


def get_pools(state: State = None, output: Shown = Output.TABLE) -> int:
    """Devices with their memory: all, reserved, in use."""
    from cotenant_operator.status import pool_rows

    status = _status(state)
    if status is None:
        return EXIT_FAILED
    document = [{"pool": status.pool, "generation": status.generation, "devices": _builtins(status.devices)}]
    return show(pool_rows(status), document, output)


def get_tenants(state: State = None, output: Shown = Output.TABLE) -> int:
    """Tenants with the models they see and their limits. Keys are never shown."""
    from cotenant_operator.output import error
    from cotenant_operator.tenants_report import TenantsUnknownError, read_tenants, tenant_document, tenant_rows

    try:
        tenants = read_tenants(state or default_state())
    except TenantsUnknownError as problem:
        error(str(problem))
        return EXIT_FAILED
    return show(tenant_rows(tenants), tenant_document(tenants), output)


def explain_model(name: Annotated[str, typer.Argument(help="name, or namespace/name.")], state: State = None) -> int:
    """Say why a model is where it is, from the conductor's last decision."""
    from cotenant_operator.near import hint
    from cotenant_operator.output import error
    from cotenant_operator.status import explain_model as explain

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
    typer.echo("\n".join(explain(found[0])))
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
