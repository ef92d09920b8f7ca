"""The waiting line of one model: tenants in turn by tokens, each tenant's requests in order of arrival.

Deficit round robin (Shreedhar, Varghese: Efficient Fair Queuing using Deficit Round Robin, SIGCOMM 1995), in the
form that pays afterwards (surplus round robin; Adiseshu, Parulkar, Varghese, SIGCOMM 1996), because what a request
costs is known when it has ended: tenants are visited in a ring, a visit is worth QUANTUM_TOKENS, and a tenant is
served as long as it has any of them left. What it took beyond them it owes to its next visits.

A tenant's balance is kept as its `level`, the tokens charged to it: it is in round level / QUANTUM_TOKENS, and the
visit is of the tenants in the lowest round, so rounds in which nobody could be served are skipped. Who comes to the
line joins the round that is being served: a pause saves up no claim and forgives no debt.

The bound. Of two tenants that both wait all the while neither is charged more than 2 × (QUANTUM_TOKENS + the dearest
request) beyond the other, over any stretch of time. (For one line; the paper has 2 × the dearest + quantum.) Charges
are estimates until a request ends, so what is served differs by the error of what runs meanwhile, too. For that error
not to last, an estimate is corrected by what the tenant's requests really took so far (`TenantQueue.expected`):
without it, one whose `max_tokens` is far too high would hold fewer slots than its part for ever.

Levels and rounds are numbers of the board, so that turns hold over all workers of a gateway. Pure but for them:
no clock and no future.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cotenant_serving.gateway.board import LocalNumber, Number

QUANTUM_TOKENS = 64
"""Worth of one visit. A large one lets a tenant with small requests send many in a row; a small one costs nothing."""
HANDOVER_SLACK = 8
"""Rounds by which a worker that was woken for a slot may be ahead of others and take it all the same: it was asked
for what was known of it, and handing the slot back would let it stand idle. It adds to the bound over workers."""
WORD = 1 << 32
_REMEMBERED = 0.9
"""An estimate is corrected by about the last ten requests."""

HANDOVER_AGE_MS = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many requests may wait in a gateway, all its workers together.

    Beyond `per_tenant` a tenant's are refused. At `total` the newest of the tenant that has the most there makes way
    for one of a tenant with fewer, else it is refused.
    """

    total: int = 1024
    per_tenant: int = 256


class Pace:
    """How fast something moves: how often it did in the last WINDOW_S to 2 × WINDOW_S seconds."""

    WINDOW_S = 30.0
    FEWEST = 4
    """With fewer in less than WINDOW_S the rate is not known."""
    SOLID = 12
    """With so many somebody may be refused for it."""
    _SHORTEST_S = 0.5

    __slots__ = ("_at_before", "_at_since", "_began", "_moved", "_since")

    def __init__(self, moved: Number) -> None:
        """`moved`: how often it did at all."""
        self._moved = moved
        self._since = self._began = -math.inf
        self._at_since = self._at_before = moved.get()

    def begin(self, now: float) -> None:
        """From now on it could move; time that it stood idle is not counted against it."""
        if not self.moves(now):
            self._since = self._began = now

    def moved(self) -> None:
        self._moved.add(1)

    def moves(self, now: float) -> float:
        self._roll(now)
        return self._moved.get() - self._at_before

    def time_for_s(self, number: int, now: float) -> float | None:
        """Until so many have moved, at this pace; None when it is not known."""
        moves = self.moves(now)
        took_s = now - max(self._began, self._since - self.WINDOW_S)
        if self._began == -math.inf or took_s < (self._SHORTEST_S if moves >= self.FEWEST else self.WINDOW_S):
            return None
        return number * took_s / max(1, moves)

    def _roll(self, now: float) -> None:
        passed = now - self._since
        if passed >= self.WINDOW_S:
            recent, moved = passed < 2 * self.WINDOW_S, self._moved.get()
            self._at_before, self._at_since = (self._at_since if recent else moved), moved
            self._since = self._since + self.WINDOW_S if recent else now


class TenantQueue(Generic[T]):
    """One tenant's part of a line, and its account there, which stays when nothing of it waits."""

    __slots__ = ("_actual", "_estimated", "_level", "items", "pace", "round", "tenant")

    def __init__(self, tenant: str, level: Number) -> None:
        self.tenant = tenant
        self.items: deque[T] = deque()
        self.pace = Pace(LocalNumber())
        """In this worker, as its part of the line is."""
        self.round = 0
        """As of the last look: other workers serve the tenant too."""
        self._level = level
        self._estimated = self._actual = 0.0

    def look(self) -> int:
        self.round = int(self._level.get() // QUANTUM_TOKENS)
        return self.round

    def join(self, least: float) -> None:
        self._level.raise_to(least)
        self.look()

    def charge(self, tokens: float) -> None:
        """Negative when too much was charged before."""
        self._level.add(tokens)

    def expected(self, estimate: int) -> float:
        """What a request of this estimate will cost, by what others of the tenant did."""
        return estimate * self._actual / self._estimated if self._estimated else float(estimate)

    def learn(self, estimate: int, actual: int) -> None:
        self._estimated = _REMEMBERED * self._estimated + estimate
        self._actual = _REMEMBERED * self._actual + actual


class WaitingLine(Generic[T]):
    """Items of several tenants that wait for the same thing."""

    def __init__(self, served: Number, level_of: Callable[[str], Number]) -> None:
        """`served`: the level at which the round begins that is being served. `level_of`: a tenant's account."""
        self._served = served
        self._level_of = level_of
        self._queues: dict[str, TenantQueue[T]] = {}
        self._ring: dict[str, TenantQueue[T]] = {}
        """Those that wait, in the order of visits within a round."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def queue(self, tenant: str) -> TenantQueue[T]:
        found = self._queues.get(tenant)
        if found is None:
            found = self._queues[tenant] = TenantQueue(tenant, self._level_of(tenant))
        return found

    def waiting(self, tenant: str) -> int:
        return len(self._ring[tenant].items) if tenant in self._ring else 0

    def items(self) -> list[T]:
        return [item for queue in self._ring.values() for item in queue.items]

    def newest(self, tenant: str) -> T | None:
        return self._ring[tenant].items[-1] if tenant in self._ring else None

    def add(self, tenant: str, item: T, *, front: bool = False) -> None:
        """`front`: it had its turn already and an engine sent it back; it must not lose its place."""
        queue = self.queue(tenant)
        if tenant not in self._ring:
            queue.join(self._served.get())
            self._ring[tenant] = queue
        queue.items.appendleft(item) if front else queue.items.append(item)
        self._length += 1

    def remove(self, tenant: str, item: T) -> bool:
        """Takes out an item that gave up. False when it was not there."""
        queue = self._ring.get(tenant)
        if queue is None or item not in queue.items:
            return False
        queue.items.remove(item)
        self._left(queue)
        return True

    def head(self) -> tuple[int, T] | None:
        """The lowest round of those that wait, and the item that is next."""
        queue = self._next()
        return (queue.round, queue.items[0]) if queue else None

    def next(self) -> tuple[str, T] | None:
        """Takes out the item whose turn it is."""
        queue = self._next()
        if queue is None:
            return None
        item = queue.items.popleft()
        self._served.raise_to(queue.round * QUANTUM_TOKENS)
        self._left(queue)
        return queue.tenant, item

    def charge(self, tenant: str, tokens: float) -> None:
        """Counts tokens as served; negative when an estimate was too high."""
        queue = self.queue(tenant)
        queue.charge(tokens)
        before = queue.round
        if queue.look() > before and tenant in self._ring:
            self._ring[tenant] = self._ring.pop(tenant)  # its visit is over

    def _next(self) -> TenantQueue[T] | None:
        """The first one of the ring in the lowest round. Other workers' charges show when it would be its turn."""
        while self._ring:
            queue = min(self._ring.values(), key=_round)
            before = queue.round
            if queue.look() <= before:
                return queue
            self._ring[queue.tenant] = self._ring.pop(queue.tenant)
        return None

    def _left(self, queue: TenantQueue[T]) -> None:
        self._length -= 1
        if not queue.items:
            del self._ring[queue.tenant]


@dataclass(frozen=True, slots=True)
class Heads:
    """Of the lines of one model in all workers, by their numbers; the last two wrap around at 2³²."""

    waiting: Sequence[int]
    """Requests in each; where there are none the rest says nothing."""
    rounds: Sequence[int]
    """The lowest that is waiting."""
    since_ms: Sequence[int]
    """When the request came that is next."""


def whose_turn(heads: Heads, worker: int, slack: int = 0) -> int | None:
    """The worker that gets a free slot; None when nobody waits. Pure.

    The one in the lowest round, and among several the one whose request came first. `worker`, who asks, has it unless
    another one is more than `slack` rounds behind, or as far and clearly older: a handover costs something, too.
    """
    rounds, since_ms = heads.rounds, heads.since_ms
    best = worker if heads.waiting[worker] else None
    for other, number in enumerate(heads.waiting):
        if not number or other == best:
            continue
        if best is None:
            best = other
            continue
        lead, age_ms = (slack, HANDOVER_AGE_MS) if best == worker else (0, 0)
        behind = _behind(rounds[other], rounds[best])
        if behind > lead or (behind == lead == 0 and _behind(since_ms[other], since_ms[best]) > age_ms):
            best = other
    return best


def _behind(one: int, other: int) -> int:
    """How much less `one` is than `other`, as both wrap around."""
    return (other - one + WORD // 2) % WORD - WORD // 2


def _round(queue: TenantQueue[T]) -> int:
    return queue.round
