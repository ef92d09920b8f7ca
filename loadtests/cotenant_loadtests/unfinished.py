"""What a worker keeps of answers under way, all together: bounded, so that no server can fill the memory."""

from __future__ import annotations

from collections.abc import Iterable

from cotenant_loadtests.exchange import Exchange

MAX_HELD_BYTES = 512 << 20
"""By one worker. Hundreds of whole answers of a megabyte fit; of streams only the event under way is kept."""


class Unfinished:
    """Counts only when it may have become too much: no more can be held than came since it was last counted."""

    def __init__(self, most_bytes: int = MAX_HELD_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = self._counted_at_bytes = 0

    def too_much(self, bytes_in: int, under_way: Iterable[Exchange]) -> list[Exchange]:
        """The largest of those under way, to be given up. `bytes_in`: all that the worker has received."""
        if self._held_bytes + bytes_in - self._counted_at_bytes <= self._most_bytes:
            return []
        by_size = sorted(under_way, key=_held_bytes)
        self._held_bytes, self._counted_at_bytes = sum(map(_held_bytes, by_size)), bytes_in
        largest = []
        while self._held_bytes > self._most_bytes:
            largest.append(by_size.pop())
            self._held_bytes -= _held_bytes(largest[-1])
        return largest


def _held_bytes(exchange: Exchange) -> int:
    return exchange.answer.held_bytes if exchange.answer is not None else 0
