"""What a worker sends next: the plan's arrivals and the later turns of conversations, with their bytes made ahead.

Pure: time is an argument. All times are CLOCK_MONOTONIC ns.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from cotenant_loadtests.exchange import Exchange
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.share_file import Share

AHEAD_NS = 500_000_000
MAX_AHEAD_REQUESTS = 256
MAX_AHEAD_BYTES = 8 << 20
"""Prompts of a hundred thousand tokens must not fill the memory."""
NEVER_NS = 1 << 62


class Upcoming:
    """`prepare` makes one exchange ahead, `take` gives the next one that is due."""

    def __init__(self, share: Share, make: Callable[[Planned, int], Exchange], start_ns: int) -> None:
        self._share, self._make, self._start_ns = share, make, start_ns
        self._arrival = -1
        self._arrival_ns = NEVER_NS
        """Of the next arrival whose bytes are not made yet."""
        self._turns: list[tuple[int, int]] = []
        """(due, place), a heap."""
        self._ready: list[tuple[int, int, Exchange]] = []
        """(due, id, …), a heap."""
        self._ready_bytes = 0
        self._step()

    @property
    def next_ns(self) -> int:
        """When the next request is due; NEVER_NS: none is known of."""
        return min(self._ready[0][0] if self._ready else NEVER_NS, self._next_raw_ns())

    def add_turn(self, due_ns: int, place: int) -> None:
        heapq.heappush(self._turns, (due_ns, place))

    def forget(self) -> None:
        """Nothing more is sent."""
        self._arrival_ns = NEVER_NS
        self._turns.clear()
        self._ready.clear()

    def wants_preparing(self, now_ns: int) -> bool:
        """Is the next request near enough, and is there room for its bytes?"""
        room = len(self._ready) < MAX_AHEAD_REQUESTS and self._ready_bytes < MAX_AHEAD_BYTES
        return room and self._next_raw_ns() <= now_ns + AHEAD_NS

    def runs_low(self, now_ns: int) -> bool:
        """Time to prepare some: half of what is kept ahead is gone. One by one would cost a turn of the loop each."""
        room = len(self._ready) < MAX_AHEAD_REQUESTS // 2 and self._ready_bytes < MAX_AHEAD_BYTES // 2
        return room and self._next_raw_ns() <= now_ns + AHEAD_NS // 2

    def prepare(self) -> None:
        exchange = self._make_next()
        self._ready_bytes += len(exchange.payload)
        heapq.heappush(self._ready, (exchange.scheduled_ns, exchange.planned.id, exchange))

    def take(self, now_ns: int) -> Exchange | None:
        """The first that is due at `now_ns`; made only now if there was no time before."""
        raw_ns = self._next_raw_ns()
        if self._ready and self._ready[0][0] <= min(now_ns, raw_ns):
            exchange = heapq.heappop(self._ready)[2]
            self._ready_bytes -= len(exchange.payload)
            return exchange
        return self._make_next() if raw_ns <= now_ns else None

    def _next_raw_ns(self) -> int:
        """Of those whose bytes are not made yet."""
        return min(self._turns[0][0], self._arrival_ns) if self._turns else self._arrival_ns

    def _step(self) -> None:
        self._arrival += 1
        more = self._arrival < self._share.arrivals
        self._arrival_ns = self._start_ns + self._share.arrival(self._arrival)[0] if more else NEVER_NS

    def _make_next(self) -> Exchange:
        if self._turns and self._turns[0][0] <= self._arrival_ns:
            due_ns, place = heapq.heappop(self._turns)
        else:
            due_ns, place = self._arrival_ns, self._share.arrival(self._arrival)[1]
            self._step()
        return self._make(self._share.planned(place), due_ns)
