"""One round after another for each key: what happens meanwhile is one next round, errors are tried again, later.

A round that failed is tried again ever later, and two seconds after it when something changes: an object
that the API server refuses keeps nobody from being heard.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cotenant_operator.cluster_errors import ClusterError
from cotenant_operator.watching import Sleep, pause_s

SPACING, LONGEST_SPACING_S = 4.0, 1.0
"""Rounds of one key that follow each other are apart by so many times what the last one took, up to a second: a flood
of changes is answered by few rounds that see much, a single change at once."""
SOONEST_S = 2.0
"""After a failure nothing is tried again before, unless it was the first ones."""

log = logging.getLogger("cotenant.operator")

Round = Callable[[str], Awaitable[float | None]]
"""key → seconds until it wants to run again without being marked; None: not before the resync."""


class RoundFailedError(Exception):
    """Something could not be written; what and why was logged."""


class Rounds:
    """Rounds of different keys run side by side, those of one key never. Level-triggered: a mark says only "look"."""

    def __init__(
        self,
        run: Round,
        *,
        debounce_s: float,
        resync_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._run, self._debounce_s, self._resync_s, self._sleep = run, debounce_s, resync_s, sleep
        self._marks: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failures: dict[str, int] = {}
        """Of each key, in a row."""

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self._tasks)

    def mark(self, key: str) -> None:
        """There is something to look at."""
        if key not in self._tasks:
            self._marks[key] = asyncio.Event()
            self._tasks[key] = asyncio.create_task(self._rounds(key), name=f"rounds of {key}")
        self._marks[key].set()

    def forget(self, key: str) -> None:
        """No more rounds of this key, until it is marked again. May be called by its own round."""
        task = self._tasks.pop(key, None)
        self._marks.pop(key, None)
        self.failures.pop(key, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def close(self) -> None:
        """End them all. A round that runs is cut off: the next leader looks at the world as it finds it."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _rounds(self, key: str) -> None:
        mark = self._marks[key]
        free_s = 0.0
        while self._tasks.get(key) is asyncio.current_task():
            await self._sleep(max(self._debounce_s, free_s - self._clock()))
            mark.clear()
            began_s = self._clock()
            try:
                again_s = await self._run(key)
                self.failures[key] = 0
            except (Exception, asyncio.CancelledError) as error:
                # A round must never end the others, whatever is wrong with the objects it looks at, nor because
                # something that it shared with others and waited for was cancelled by them.
                if isinstance(error, asyncio.CancelledError) and _asked_to_end():
                    raise
                failures = self.failures[key] = self.failures.get(key, 0) + 1
                again_s = pause_s(failures)
                log.warning(
                    "round of %s failed, it is tried again: %s",
                    key,
                    error,
                    exc_info=None if isinstance(error, RoundFailedError | ClusterError) else error,
                )
                await self._sleep(min(again_s, SOONEST_S))
                if again_s > SOONEST_S:
                    await _within(mark, again_s - SOONEST_S)
                continue
            ended_s = self._clock()
            free_s = ended_s + min(LONGEST_SPACING_S, SPACING * (ended_s - began_s))
            await _within(mark, min(again_s if again_s is not None else self._resync_s, self._resync_s))


def _asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _within(mark: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await mark.wait()
    except TimeoutError:
        pass
