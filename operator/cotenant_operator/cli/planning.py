"""`cotenant plan`."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import (
    EXIT_MANIFESTS,
    EXIT_REFUSED,
    Context,
    Files,
    Kubeconfig,
    Output,
    Shown,
    State,
    default_state,
    show,
)

if TYPE_CHECKING:
    from cotenant_operator.cli.cluster_planning import ClusterPlan
    from cotenant_operator.objects import World
    from cotenant_operator.planned import Plan


ModelNamespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="In a cluster: where models go that name no namespace. Default: the context's."
    ),
]


def plan(
    file: Files,
    output: Shown = Output.TABLE,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: ModelNamespace = None,
) -> int:
    """Say what would run where, who would see it, and what is refused and why. Changes nothing."""
    from cotenant_operator.cli.world import find_world
    from cotenant_operator.world import read_world

    where = find_world(state, kubeconfig, context, namespace)
    if isinstance(where, Path):
        return _print_plan(_plan_here(read_world(file, where / "cache")), output, created=_created_keys(where))
    from cotenant_operator.cli.cluster_planning import plan_for_cluster

    return _print_cluster_plan(plan_for_cluster(where, file, namespace, default_state() / "cache"), output)


def _print_cluster_plan(found: "ClusterPlan", output: Output) -> int:
    from cotenant_operator.cluster_plan import change_document, change_rows
    from cotenant_operator.output import note
    from cotenant_operator.plan_report import plan_document, plan_rows

    document = {**plan_document(found.plan), "changes": change_document(found.changes), "notes": list(found.notes)}
    show(change_rows(found.changes), document, output)
    if found.plan.models and output in (Output.TABLE, Output.WIDE):
        typer.echo()
        show(plan_rows(found.plan, wide=output is Output.WIDE), None, output)
    for text in found.notes:
        note(text)
    return _verdict(found.plan)


def _plan_here(world: "World") -> "Plan":
    from cotenant_operator.machine import default_pool, device_memory
    from cotenant_operator.plan import plan as make_plan

    if not world.manifests.pools:
        world = world.with_pool(default_pool())
    return make_plan(world, {pool.metadata.name: device_memory(pool) for pool in world.manifests.pools})


def _created_keys(state: Path) -> Mapping[str, int]:
    """Tenant → keys of `cotenant key create` that live now: they work for the planned tenants too."""
    from cotenant_operator.key_book import KeyBook

    return Counter(key.tenant for key in KeyBook(state).read() if key.lives(time.time()))


def _print_plan(planned: "Plan", output: Output, *, created: Mapping[str, int]) -> int:
    from cotenant_operator.plan_report import plan_document, plan_rows

    show(plan_rows(planned, wide=output is Output.WIDE), plan_document(planned, created), output)
    return _verdict(planned)


def _verdict(planned: "Plan") -> int:
    """Warnings and errors on stderr, and the exit code."""
    from cotenant_operator.output import error, warning
    from cotenant_serving.contract import Reason

    for text in planned.warnings:
        warning(text)
    for text in planned.errors:
        error(text)
    if planned.errors:
        return EXIT_MANIFESTS
    refusals = [model.refusal for model in planned.models if model.refusal is not None]
    return EXIT_REFUSED if any(refusal.reason is not Reason.FACTS_PENDING for refusal in refusals) else 0
