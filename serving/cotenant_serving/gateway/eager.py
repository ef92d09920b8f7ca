"""Coroutines that run in the callback that begins them, and go on in the callback that has what they wait for.

A task waits for its turn of the event loop to begin, and once more for each future that it awaits; for a request that
is as much as everything else. `Work` runs its coroutine at once, and a `Signal` lets it go on in the call of `give`.
What awaits anything else than a signal (a time-out, a thread, a lock) becomes an ordinary task there and then.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Ended = Callable[[BaseException | None], None]
"""Told at the end of a coroutine, with what it raised."""

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
            work.step()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def forget(self) -> None:
        """Whoever waits does so no more."""
        self._work = None

    def remember(self, work: "Work") -> None:
        """It waits after all."""
        self._work = work

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
    """One coroutine. As a task it can be cancelled, and gives up its place in `among` at its end."""

    __slots__ = ("_among", "_cancelled", "_coroutine", "_ended", "_loop", "_signal", "_task", "_task_runs")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, among: set[Any], ended: Ended
    ) -> None:
        """`step` lets it begin."""
        self._coroutine, self._loop, self._among, self._ended = coroutine, loop, among, ended
        self._signal: Signal | None = None
        self._task: asyncio.Task[None] | None = None
        self._task_runs = self._cancelled = False
        among.add(self)

    def step(self, thrown: BaseException | None = None) -> None:
        """Goes on, and returns when the coroutine waits again or has ended."""
        global _running
        outer, _running = _running, self
        self._signal = None
        try:
            waits_for = self._coroutine.send(None) if thrown is None else self._coroutine.throw(thrown)
        except BaseException as problem:
            _running = outer
            self._among.discard(self)
            self._ended(None if isinstance(problem, StopIteration) else problem)
            return
        _running = outer
        if isinstance(waits_for, Signal):
            self._signal = waits_for
        else:
            self._task = self._loop.create_task(self._rest(waits_for))

    def cancel(self, msg: object = None) -> None:
        """As that of a task: soon."""
        del msg
        if self._task is not None:
            self._cancel_task(self._task)
        elif not self._cancelled:
            self._cancelled = True
            if self._signal is not None:
                self._signal.forget()  # what comes in between comes too late, as for a task
            self._loop.call_soon(self._throw)

    def uncancel(self) -> None:
        was_cancelled, self._cancelled = self._cancelled, False
        if self._task is not None:
            self._task.uncancel()
        elif was_cancelled and self._signal is not None:
            if self._signal.given:
                self._loop.call_soon(self.step)
            else:
                self._signal.remember(self)

    def _throw(self) -> None:
        signal = self._signal
        if not self._cancelled or self not in self._among:
            return
        if self._task is not None:
            self._cancel_task(self._task)
        elif signal is not None:
            signal.forget()
            self.step(asyncio.CancelledError())

    def _cancel_task(self, task: "asyncio.Task[None]") -> None:
        if self._task_runs:
            task.cancel()
        else:
            self._loop.call_soon(task.cancel)  # a task that has not begun would end without the coroutine's end

    async def _rest(self, waits_for: Any) -> None:
        self._task_runs = True
        try:
            await _Rest(self._coroutine, waits_for)
        except BaseException as problem:
            self._ended(problem)
            if not isinstance(problem, Exception):
                raise
        else:
            self._ended(None)
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
