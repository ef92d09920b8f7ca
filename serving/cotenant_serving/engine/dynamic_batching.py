"""Dynamic batching: items of many requests (texts, pairs, tensor rows) share forward passes.

Policy (`Waiting`, pure): requests take turns. Each batch is built around the next item of the request whose turn it
is, with those of all requests that are nearest to it in length. So a request with one item passes one with two
thousand, and none waits for more batches than there are requests. Nothing is padded to more than twice its length
(or `PADDED_FREELY`), and a pass has at most `max_padded_tokens`, padding included.

Shell (`DynamicBatcher`): one worker thread computes one batch at a time. The first item of a batch waits at most
`wait_s` for company; while a batch is computed the next one gathers. A batch that fails is done again item by item,
so that only requests with a culprit fail.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cotenant_serving.engine.base import GenerationError

PADDED_FREELY = 32
"""Tokens: up to this length, items share a batch whatever their lengths. Less work than another pass."""

log = logging.getLogger("cotenant.engine")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_rows` and `max_padded_tokens` are of one pass. An item alone may exceed both."""

    max_rows: int
    max_padded_tokens: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed at once with others of the same `key`. `length` is 0 for what is never padded."""

    payload: Any
    length: int = 0
    rows: int = 1
    key: Hashable = None


@dataclass(slots=True, eq=False)
class Item:
    """One piece of work of the request `owner` (anything hashable); `index` is its place there."""

    owner: Any
    index: int
    work: Work
    place: tuple[int, int] = (0, 0)
    """Its place among those of its key: length, then order of arrival."""
    waits: bool = True


def window(items: Sequence[Item], at: int, limits: BatchLimits) -> tuple[int, int]:
    """The part [low, high) of `items`, sorted by length, that makes a batch with `items[at]`. Pure."""
    low, high = at, at + 1
    rows = items[at].work.rows
    while True:
        sides = []
        if low > 0:
            sides.append((items[at].work.length - items[low - 1].work.length, low - 1, high))
        if high < len(items):
            sides.append((items[high].work.length - items[at].work.length, low, high + 1))
        for _, wider_low, wider_high in sorted(sides):
            added = items[wider_low if wider_low < low else high]
            if _fits(items[wider_low], items[wider_high - 1], rows + added.work.rows, limits):
                low, high, rows = wider_low, wider_high, rows + added.work.rows
                break
        else:
            return low, high


def _fits(shortest: Item, longest: Item, rows: int, limits: BatchLimits) -> bool:
    length = longest.work.length
    return (
        rows <= limits.max_rows
        and rows * length <= limits.max_padded_tokens
        and length <= max(2 * shortest.work.length, PADDED_FREELY)
    )


@dataclass(slots=True)
class _Turn:
    """A request with items that wait, in their order. `since_s` is when they came."""

    since_s: float
    items: deque[Item]

    def next(self) -> Item | None:
        while self.items and not self.items[0].waits:
            self.items.popleft()
        return self.items[0] if self.items else None


class Waiting:
    """Items that wait for a batch. Times are seconds of any one clock."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._turns: dict[Hashable, _Turn] = {}
        """In the order of their turns."""
        self._by_length: dict[Hashable, list[Item]] = {}
        self._rows: dict[Hashable, int] = {}
        self._arrived = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_length.values()))

    def add(self, owner: Hashable, works: Sequence[Work], now_s: float) -> None:
        """`owner` has none waiting yet."""
        items = [Item(owner, index, work) for index, work in enumerate(works)]
        for item in items:
            self._arrived += 1
            item.place = (item.work.length, self._arrived)
            self._by_length.setdefault(item.work.key, []).append(item)
            self._rows[item.work.key] = self._rows.get(item.work.key, 0) + item.work.rows
        for key in {item.work.key for item in items}:
            self._by_length[key].sort(key=_place)
        self._turns[owner] = _Turn(now_s, deque(items))

    def drop(self, owner: Hashable) -> None:
        """Forgets what waits of a request. Unknown owners are ignored."""
        turn = self._turns.pop(owner, None)
        for item in turn.items if turn else ():
            if item.waits:
                items = self._by_length[item.work.key]
                self._take(item.work.key, at := bisect_left(items, item.place, key=_place), at + 1)

    def due_s(self) -> float | None:
        """When the next batch should begin: in the past when it is full already; None when nothing waits."""
        if not self._turns:
            return None
        first = min(turn.since_s for turn in self._turns.values())
        return first if self._full() else first + self._limits.wait_s

    def _full(self) -> bool:
        """Whether waiting is of no use: rows enough for a batch, or the next one has room for no other item."""
        if any(rows >= self._limits.max_rows for rows in self._rows.values()):
            return True
        key, low, high = self._next(next(iter(self._turns)))
        batch = self._by_length[key][low:high]
        rows = sum(item.work.rows for item in batch)
        return (rows + 1) * batch[-1].work.length > self._limits.max_padded_tokens

    def take(self) -> list[Item]:
        """The next batch; empty when nothing waits."""
        owner = next(iter(self._turns), None)
        if owner is None:
            return []
        batch = self._take(*self._next(owner))
        for served in {item.owner: None for item in batch} | {owner: None}:
            turn = self._turns.pop(served)
            if turn.next() is not None:
                # To the end: also those that came along with another's turn.
                self._turns[served] = turn
        return batch

    def _next(self, owner: Hashable) -> tuple[Hashable, int, int]:
        """Key and window of the batch around the next item of `owner`."""
        anchor = self._turns[owner].next()
        assert anchor is not None, "a request without items has no turn"
        items = self._by_length[anchor.work.key]
        return anchor.work.key, *window(items, bisect_left(items, anchor.place, key=_place), self._limits)

    def _take(self, key: Hashable, low: int, high: int) -> list[Item]:
        items = self._by_length[key]
        batch = items[low:high]
        del items[low:high]
        self._rows[key] -= sum(item.work.rows for item in batch)
        if not items:
            del self._by_length[key], self._rows[key]
        for item in batch:
            item.waits = False
        return batch


def _place(item: Item) -> tuple[int, int]:
    return item.place


@dataclass(slots=True, eq=False)
class _Request:
    id: str
    answers: list[Any]
    left: int
    done: asyncio.Future[list[Any]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class DynamicBatcher:
    """See the module. Event loop only, but for `compute`: it gets payloads and returns as many results, or raises.

    A result that is an exception fails its request alone. `is_fatal`: errors after which this process is of no use.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        limits: BatchLimits,
        is_fatal: Callable[[Exception], bool] = lambda error: False,
    ) -> None:
        self._compute = compute
        self._is_fatal = is_fatal
        self._waiting = Waiting(limits)
        self._requests: set[_Request] = set()
        """Unfinished ones. Items hold theirs: an id may come again while a cancelled request is computed."""
        self._computing = False
        self._alarm: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self._closed = False
        self.broken = False

    def compute_now(self, payloads: Sequence[Any]) -> Sequence[Any]:
        """A batch before there are requests, in the thread of all batches. Blocks; raises what `compute` does.

        The C library keeps what is freed for the thread that had it: warmed up in another one, a process would hold
        the memory of a pass twice.
        """
        return self._thread.submit(self._compute, payloads).result()

    async def run(self, request_id: str, works: Sequence[Work]) -> list[Any]:
        """Results in the order of `works`. Raises GenerationError, or CancelledError after `cancel`."""
        if self.broken:
            raise GenerationError("The engine is broken and about to be replaced.", code="engine_broken")
        if self._closed:
            raise _stopped()
        request = _Request(request_id, [None] * len(works), len(works))
        self._requests.add(request)
        try:
            self._waiting.add(request, works, asyncio.get_running_loop().time())
            self._pump()
            return await request.done
        finally:
            self._forget(request)

    def cancel(self, request_id: str) -> None:
        """What waits is dropped; what is computed now is computed for nobody. Unknown ids are ignored."""
        for request in [request for request in self._requests if request.id == request_id]:
            self._forget(request)

    def close(self) -> None:
        self._closed = True
        self._set_alarm(None)
        self._thread.shutdown(wait=False, cancel_futures=True)
        for request in list(self._requests):
            self._fail(request, _stopped())

    def _pump(self) -> None:
        """Begins the next batch if it is due and the thread is free, else sets the alarm for it."""
        due_s = self._waiting.due_s()
        if self._computing or due_s is None:
            return
        loop = asyncio.get_running_loop()
        if due_s > loop.time():
            self._set_alarm(due_s)
            return
        self._set_alarm(None)
        batch = self._waiting.take()
        self._computing = True
        computed = loop.run_in_executor(self._thread, self._attempt, [item.work.payload for item in batch])
        computed.add_done_callback(partial(self._settle, batch))

    def _set_alarm(self, at_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at_s is None else asyncio.get_running_loop().call_at(at_s, self._pump)

    def _attempt(self, payloads: Sequence[Any]) -> Sequence[Any]:
        """In the worker thread. One result or exception for each payload."""
        try:
            return self._compute(payloads)
        except Exception as error:
            if len(payloads) == 1 or self._is_fatal(error):
                log.exception("%d item(s) could not be computed", len(payloads))
                return [error] * len(payloads)
            log.warning("a batch of %d failed, computing its items alone: %s", len(payloads), type(error).__name__)
        return [self._attempt([payload])[0] for payload in payloads]

    def _settle(self, batch: Sequence[Item], computed: asyncio.Future[Sequence[Any]]) -> None:
        self._computing = False
        if computed.cancelled():  # closed
            return
        for item, answer in zip(batch, computed.result(), strict=True):
            request: _Request = item.owner
            if request.done.done():
                continue
            if isinstance(answer, Exception):
                self.broken = self.broken or self._is_fatal(answer)
                self._fail(request, _failure(item.index, answer))
                continue
            request.answers[item.index] = answer
            request.left -= 1
            if request.left == 0:
                request.done.set_result(request.answers)
        if not self._closed:
            self._pump()

    def _fail(self, request: _Request, error: GenerationError) -> None:
        if not request.done.done():
            request.done.set_exception(error)
        self._forget(request)

    def _forget(self, request: _Request) -> None:
        self._waiting.drop(request)
        self._requests.discard(request)
        request.done.cancel()


def _stopped() -> GenerationError:
    return GenerationError("The engine was stopped.", code="engine_stopped")


def _failure(index: int, cause: Exception) -> GenerationError:
    if isinstance(cause, GenerationError):
        return cause
    lines = str(cause).strip().splitlines()
    why = lines[-1].rstrip(".") if lines else "no message"
    return GenerationError(
        f"Input {index} could not be computed: {type(cause).__name__}: {why}. The engine's log has more.",
        code="computation_failed",
    )
