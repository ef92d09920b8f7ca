"""Everything that is under way, by its deadline: a look twenty times a second instead of a timer for each."""

from __future__ import annotations

from collections.abc import Iterator

from cotenant_loadtests.exchange import Exchange

SLOT_NS = 50_000_000
"""A deadline may be noticed twice as late. An answer that comes in between is too late all the same."""


class Deadlines:
    def __init__(self) -> None:
        self._slots: dict[int, set[Exchange]] = {}

    def __iter__(self) -> Iterator[Exchange]:
        return (exchange for slot in list(self._slots.values()) for exchange in list(slot))

    def __bool__(self) -> bool:
        return bool(self._slots)

    def add(self, exchange: Exchange) -> None:
        exchange.slot = slot = -(-exchange.deadline_ns // SLOT_NS)
        self._slots.setdefault(slot, set()).add(exchange)

    def remove(self, exchange: Exchange) -> None:
        """One that is not there is fine."""
        slot = self._slots.get(exchange.slot)
        if slot is not None:
            slot.discard(exchange)
            if not slot:
                del self._slots[exchange.slot]

    def passed(self, now_ns: int) -> list[Exchange]:
        """Those whose time is over; they are still there."""
        now_slot = now_ns // SLOT_NS
        return [exchange for slot in [s for s in self._slots if s <= now_slot] for exchange in self._slots[slot]]
