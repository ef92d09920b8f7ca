"""The routing table: merging what conductors say, and picking an engine. Pure.

A row leaves only when its conductor names the instance in `gone`, when another instance answers at its address, or
when the engine itself says so (`dropped`). A conductor that just restarted and knows little empties nothing.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cotenant_serving.contract import Message, ModelState
from cotenant_serving.contract_gateway import EngineRow, ModelRow, Table
from cotenant_serving.gateway.board import Count


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
    silent: frozenset[str] = frozenset()
    """Instances that hang, as far as their conductor knows."""


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


def left(known: Known) -> Known:
    """Of a conductor that is not followed any more: its engines serve on, but nobody names them."""
    return Known(latest=Table(epoch="", sequence=0), kept=(*known.latest.engines, *known.kept))


def combine(knowns: Iterable[Known]) -> View:
    """Several conductors (both Ray clusters while a pool rolls) as one table: any engine serves."""
    engines: dict[str, dict[str, EngineRow]] = {}
    models: dict[str, ModelRow] = {}
    listed: set[str] = set()
    silent: set[str] = set()
    for known in knowns:
        listed |= {row.instance for row in known.latest.engines}
        silent |= set(known.latest.silent)
        for row in (*known.kept, *known.latest.engines):
            engines.setdefault(row.model, {})[row.instance] = row
        for model in known.latest.models:
            other = models.get(model.model)
            if other is None or _HOPE[model.state] > _HOPE[other.state]:
                models[model.model] = model
    rows = {model: tuple(by_instance.values()) for model, by_instance in engines.items()}
    return View(rows, models, frozenset(listed), frozenset(silent - listed))


# Where conductors differ, the one that will have an engine soonest speaks for the model.
_HOPE: Mapping[ModelState, int] = {"failed": 0, "waiting": 1, "cold": 2, "waking": 3, "ready": 4}


class Candidate(Protocol):
    """An engine as `pick` sees it."""

    slots: int
    rests_until: float
    """Seconds of the dispatcher's clock: it is not asked before."""
    taken: Count
    """Slots that this gateway has taken there. A sum of its values is no call of a function, as `total` is."""


C = TypeVar("C", bound=Candidate)


def pick(engines: Sequence[C], now: float, rng: random.Random) -> C | None:
    """The less loaded of two random engines, as parts of their slots; None when all are full or rest.

    Looks at no more than two as long as one of them has a free slot.
    """
    number = len(engines)
    if number > 2:
        first = int(rng.random() * number)
        second = (first + 1 + int(rng.random() * (number - 1))) % number
        found = pick((engines[first], engines[second]), now, rng)
        return found or pick(_any_two_free(engines, now, rng), now, rng)
    best, best_load = None, 1.0
    for engine in engines:
        load = sum(engine.taken.values) / engine.slots
        if engine.rests_until <= now and (load < best_load or (load == best_load < 1 and rng.random() < 0.5)):
            best, best_load = engine, load
    return best


def _any_two_free(engines: Sequence[C], now: float, rng: random.Random) -> Sequence[C]:
    free = [engine for engine in engines if engine.rests_until <= now and sum(engine.taken.values) < engine.slots]
    return rng.sample(free, min(2, len(free)))
