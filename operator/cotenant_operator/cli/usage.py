"""`cotenant usage`: who used what."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import Context, Kubeconfig, OperatorNamespace, Output, Shown, State, show

if TYPE_CHECKING:
    from cotenant_operator.cli.world import Cluster
    from cotenant_operator.usage_report import Usage


def usage(
    by: Annotated[str, typer.Option(help="Fields to sum by: tenant, model, outcome, day.")] = "tenant,model",
    since: Annotated[
        str | None, typer.Option(help="A duration before now (1h, 7d), or a date (2026-11-26). Default: all.")
    ] = None,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = None,
    output: Shown = Output.TABLE,
) -> int:
    """Sum up requests and tokens, tenant by tenant and model by model."""
    from cotenant_operator.cli.world import find_world
    from cotenant_operator.usage_report import parse_by, parse_since, usage_document, usage_rows

    fields = parse_by(by)
    begin = None if since is None else parse_since(since, time.time())
    world = find_world(state, kubeconfig, context, operator_namespace)
    if isinstance(world, Path):
        found, what, where = _of_up(world, fields, begin), "lines", str(world / "gateway" / "usage.jsonl")
    else:
        found, what, where = _of_cluster(world, operator_namespace, fields, begin), "ConfigMaps", "cotenant-usage-…"
    show(usage_rows(found, wide=output is Output.WIDE), usage_document(found), output)
    _warn(found, what, where)
    return 0


def _warn(found: "Usage", what: str, where: str) -> None:
    from cotenant_operator.output import note, warning

    if not found.total.requests:
        note(f"nothing to sum up: each admitted request is in {where} when it has ended")
    if found.damaged:
        warning(f"{found.damaged} {what} of {where} are damaged and in no sum; look at them, or move them away")


def _of_up(state: Path, fields: tuple[str, ...], begin: float | None) -> "Usage":
    from cotenant_operator.published import read_published
    from cotenant_operator.usage_report import sum_up

    try:
        with (state / "gateway" / "usage.jsonl").open("rb") as lines:
            return sum_up(lines, fields, begin)
    except FileNotFoundError:
        read_published(state)  # says so when nothing has ever run here
        return sum_up((), fields, begin)


def _of_cluster(cluster: "Cluster", namespace: str | None, fields: tuple[str, ...], begin: float | None) -> "Usage":
    from cotenant_operator.kinds import CONFIG_MAPS
    from cotenant_operator.objects import SYSTEM_NAMESPACE
    from cotenant_operator.output import note
    from cotenant_operator.usage_ledger import LABEL, begins_later, usage_of, whole_days

    path = CONFIG_MAPS.path(namespace or SYSTEM_NAMESPACE)
    ledgers = cluster.api.list(path, {"labelSelector": f"{LABEL}=true"})
    if begin is not None and whole_days(begin) != begin:
        note("a cluster's usage is kept by day of UTC: all of the day that --since falls on is counted")
    data = [ledger.get("data") or {} for ledger in ledgers]
    if first := begins_later(data, begin):
        note(f"the first day that there is usage of is {first}; older days are deleted (operator.usageRetentionDays)")
    return usage_of(data, fields, begin)
