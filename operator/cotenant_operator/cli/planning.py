"""`cotenant plan`."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_operator.cli.options import (
    EXIT_MANIFESTS,
    EXIT_REFUSED,
    Files,
    Output,
    Shown,
    State,
    default_state,
    show,
)

if TYPE_CHECKING:
    from cotenant_operator.objects import World
    from cotenant_operator.planned import Plan


def plan(
    file: Files,
    output: Shown = Output.TABLE,
    state: State = None,
) -> int:
    """Say what would run where, who would see it, and what is refused and why. Changes nothing."""
    from cotenant_operator.world import read_world

    where = state or default_state()
    return _print_plan(_plan_here(read_world(file, where / "cache")), output, created=_created_keys(where))


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
    from cotenant_operator.output import error, warning
    from cotenant_operator.plan_report import plan_document, plan_rows

    show(plan_rows(planned, wide=output is Output.WIDE), plan_document(planned, created), output)
    for text in planned.warnings:
        warning(text)
    for text in planned.errors:
        error(text)
    if planned.errors:
        return EXIT_MANIFESTS
    return EXIT_REFUSED if any(model.refusal for model in planned.models) else 0
