"""Coroutines that run in the callback that begins them, and go on in the callback that has what they wait for.

A task waits for its turn of the event loop to begin, and once more for each future that it awaits; for a request that
is as much as everything else. `Work` runs its coroutine at once, and a `Signal` lets it go on in the call of `give`.
What awaits anything else than a signal (a time-out, a thread, a lock) becomes an ordinary task there and then.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

_running: "Work | None" = None
"""Whose coroutine is on the stack now. One event loop per process runs in one thread."""


class Signal:
    """What one coroutine waits for, at most once. `give` must be the last thing that its caller does."""

    __slots__ = ("_future", "_work", "given")

    def __init__(self) -> None:
        self.given = False
        self._work: Work | None = None
        self._future: asyncio.Future[None] | None = None

    def give(self) -> None:
        """Whoever waits goes on now, or who waits later need not."""
        if self.given:
            return
        self.given = True
        work, self._work = self._work, None
        if work is not None:
            work.go_on()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def forget(self) -> None:
        """Whoever waits does so no more."""
        self._work = None

    def __await__(self) -> Generator[Any, None, None]:
        if self.given:
            return
        if _running is not None:
            self._work = _running
            yield self
        else:
            self._future = asyncio.get_running_loop().create_future()
            yield from self._future


class Work:
    """One coroutine. As a task it can be cancelled, and gives up its place in `among` at its end.

    The coroutine answers its own exceptions: one that it raises is the loop's to tell.
    """

    __slots__ = ("_among", "_cancelled", "_coroutine", "_loop", "_signal", "_task")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, among: set[Any]
    ) -> None:
        self._coroutine, self._loop, self._among = coroutine, loop, among
        self._signal: Signal | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def begin(self) -> None:
        """Returns when the coroutine has ended or waits."""
        self._among.add(self)
        self._step(self._coroutine.send, None)

    def go_on(self) -> None:
        self._signal = None
        self._step(self._coroutine.send, None)

    def cancel(self, msg: object = None) -> None:
        """As that of a task: soon."""
        del msg
        if self._task is not None:
            self._task.cancel()
        elif not self._cancelled:
            self._cancelled = True
            self._loop.call_soon(self._throw)

    def uncancel(self) -> None:
        self._cancelled = False
        if self._task is not None:
            self._task.uncancel()

    def _throw(self) -> None:
        signal = self._signal
        if not self._cancelled or self not in self._among:
            return
        if self._task is not None:
            self._task.cancel()
        elif signal is not None:
            signal.forget()
            self._signal = None
            self._step(self._coroutine.throw, asyncio.CancelledError())

    def _step(self, go: Callable[[Any], Any], value: object) -> None:
        global _running
        outer, _running = _running, self
        try:
            waits_for = go(value)
        except StopIteration:
            self._among.discard(self)
            return
        except BaseException as problem:
            self._among.discard(self)
            if not isinstance(problem, asyncio.CancelledError):
                self._loop.call_exception_handler({"message": "work failed", "exception": problem})
            return
        finally:
            _running = outer
        if isinstance(waits_for, Signal):
            self._signal = waits_for
        else:
            self._task = self._loop.create_task(self._rest(waits_for))

    async def _rest(self, waits_for: Any) -> None:
        try:
            await _Rest(self._coroutine, waits_for)
        finally:
            self._among.discard(self)


class _Rest:
    """What is left of a coroutine that has yielded something which only a task can wait for."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            thrown: BaseException | None = None
            value = None
            try:
                value = yield waits_for
            except BaseException as problem:
                thrown = problem
            try:
                waits_for = self._coroutine.send(value) if thrown is None else self._coroutine.throw(thrown)
            except StopIteration:
                return


def current() -> "Work | asyncio.Task[Any]":
    """What runs the coroutine that asks."""
    running: Work | asyncio.Task[Any] | None = _running or asyncio.current_task()
    assert running is not None
    return running


async def as_task() -> None:
    """From here on the coroutine is run by a task: before anything of asyncio that asks for one, as time-outs do."""
    if _running is not None:
        await asyncio.sleep(0)
