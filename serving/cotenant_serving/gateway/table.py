"""The routing table: merging what conductors say, and picking an engine. Pure.

A row leaves only when its conductor names the instance in `gone`, when another instance answers at its address, or
when the engine itself says so (`dropped`). A conductor that just restarted and knows little empties nothing.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cotenant_serving.contract import EngineRow, Message, ModelRow, ModelState, Table


class Known(Message, frozen=True, kw_only=True):
    """What is known from one conductor: its latest table, and rows that only older ones had."""

    latest: Table
    kept: tuple[EngineRow, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """All conductors merged."""

    engines: Mapping[str, tuple[EngineRow, ...]] = field(default_factory=dict)
    """Model → its engines."""
    models: Mapping[str, ModelRow] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()
    """Instances that a conductor names now, not only in an older table."""


def merge(known: Known | None, table: Table) -> Known:
    """A new table of the same conductor on top of what is known. An older one of the same epoch changes nothing."""
    if known is None:
        return Known(latest=table)
    latest = known.latest
    if table.epoch == latest.epoch and table.sequence < latest.sequence:
        return known
    named = {row.instance for row in table.engines} | set(table.gone)
    addresses = {(row.host, row.port) for row in table.engines}
    kept = tuple(
        row
        for row in (*latest.engines, *known.kept)
        if row.instance not in named and (row.host, row.port) not in addresses
    )
    return Known(latest=table, kept=kept)


def combine(knowns: Iterable[Known]) -> View:
    """Several conductors (both Ray clusters while a pool rolls) as one table: any engine serves."""
    engines: dict[str, dict[str, EngineRow]] = {}
    models: dict[str, ModelRow] = {}
    listed: set[str] = set()
    for known in knowns:
        listed |= {row.instance for row in known.latest.engines}
        for row in (*known.kept, *known.latest.engines):
            engines.setdefault(row.model, {})[row.instance] = row
        for model in known.latest.models:
            other = models.get(model.model)
            if other is None or _HOPE[model.state] > _HOPE[other.state]:
                models[model.model] = model
    rows = {model: tuple(by_instance.values()) for model, by_instance in engines.items()}
    return View(rows, models, frozenset(listed))


# Where conductors differ, the one that will have an engine soonest speaks for the model.
_HOPE: Mapping[ModelState, int] = {"failed": 0, "waiting": 1, "cold": 2, "waking": 3, "ready": 4}


def pick(
    rows: Sequence[EngineRow],
    in_flight: Callable[[str], int],
    unavailable: Collection[str],
    rng: random.Random,
) -> EngineRow | None:
    """The less loaded of two random engines with a free slot; None when all are full.

    `in_flight`: instance → requests that this gateway has there. The table's `running` also counts other
    gateways' requests but is old, so it only decides who is asked first: engines enforce their slots themselves.
    """
    free = [row for row in rows if row.instance not in unavailable and in_flight(row.instance) < row.slots]
    surely = [row for row in free if row.running < row.slots] or free
    if len(surely) <= 1:
        return surely[0] if surely else None
    return min(rng.sample(surely, 2), key=lambda row: in_flight(row.instance) / row.slots)
