"""`cotenant plan`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import EXIT_MANIFESTS, EXIT_REFUSED, Files, PlanOutput, State, default_state

if TYPE_CHECKING:
    from cotenant_operator.objects import World
    from cotenant_operator.planned import Plan


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
