"""One cache instance at work: what it fetches, for whom, and what it could not have.

Calls of the cache block, so each runs in a thread; everything here is touched by the event loop alone.
"""

import asyncio
import functools
import logging
import math
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import msgspec

from cotenant_cache.cache import Cache
from cotenant_cache.contract import NodeReport, Progress
from cotenant_cache.errors import CacheError, FetchStoppedError, TooLateError
from cotenant_cache.shelving import Leased

EVERY_S = 1.0
"""Those who wait hear something at least so often."""
RELEASE_AGAIN_S = 5.0
CALLS_AT_ONCE = 64
"""Threads: most of them wait for one that fetches."""

log = logging.getLogger("cotenant.cache")
P = ParamSpec("P")
T = TypeVar("T")


class Fetch:
    """An `ensure` that runs, and everyone who hears of it. It goes on whoever leaves, until it ends or is stopped."""

    def __init__(
        self,
        source: str,
        ensure: Callable[[Callable[[Progress], None], Callable[[], bool]], Coroutine[Any, Any, Leased]],
    ) -> None:
        """`ensure` takes whom to tell, and what says that nobody wants it any more, for any thread."""
        loop = asyncio.get_running_loop()
        self.source, self.said = source, Progress(source=source, phase="waiting")
        self._news, self._stopped = asyncio.Event(), threading.Event()

        def told(said: Progress) -> None:
            loop.call_soon_threadsafe(self._hear, said)

        self.task = asyncio.create_task(ensure(told, self._stopped.is_set), name=f"ensure {source}")

    def stop(self) -> None:
        """It ends soon, with FetchStoppedError; what came is kept, and others that fetch the same go on."""
        self._stopped.set()

    async def heard(self, until: float = math.inf) -> AsyncGenerator[Progress, None]:
        """Until its end, `done` or `failed` with the reason; `failed` at `until` (the loop's time), too."""
        loop = asyncio.get_running_loop()
        while not self.task.done():
            yield self.said
            left_s = until - loop.time()
            if left_s <= 0:
                yield self._too_late()
                return
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait((self.task, news), timeout=min(EVERY_S, left_s), return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        yield ending(self.source, self.task)

    def _hear(self, said: Progress) -> None:
        self.said = said
        self._news.set()

    def _too_late(self) -> Progress:
        said = self.said
        message = (
            f"{self.source}: not here before deadline_s was over; {said.phase}, {said.done_bytes} of "
            f"{said.total_bytes} bytes: that goes on; ask again, with a longer deadline"
        )
        return Progress(source=self.source, phase="failed", reason=TooLateError.reason, message=message)


class CacheNode:
    """`name` of the node, as it stands in its reports."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache, self.name = cache, name
        self.failed: dict[str, Progress] = {}
        """Of the preload list: what could not be had, and why."""
        self.ended: dict[str, int] = {}
        """Reason (`done`, or a CacheError's) → fetches that ended with it."""
        self._fetches: dict[tuple[str, bool], Fetch] = {}
        """By source, and whether somebody needs it now."""
        self._releasing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, "cache")

    async def close(self) -> None:
        """Fetches that run are left to themselves: the process ends, and what came is kept."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread. Raises what it raises."""
        bound = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, bound)

    def give_back(self, taking: "asyncio.Future[Leased]") -> None:
        """The lease of one who left while it was taken."""
        if not taking.cancelled() and taking.exception() is None and taking.result().lease_id:
            self.release(taking.result().lease_id)

    def release(self, lease_id: str) -> None:
        """Until it is done: a ledger that is busy, or a disk that is full, must not keep a lease for ever."""
        task = asyncio.create_task(self._release(lease_id))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, lease_id: str) -> None:
        while True:
            try:
                await self.call(self.cache.release, lease_id)
                return
            except CacheError as error:
                log.warning("a lease is given back later: %s", error)
                await asyncio.sleep(RELEASE_AGAIN_S)

    async def report(self) -> NodeReport:
        usage, models = await self.call(self.cache.usage), await self.call(self.cache.models)
        fetching = tuple(fetch.said for fetch in self._fetches.values())
        return NodeReport(
            node=self.name, usage=usage, models=models, fetching=fetching, failed=tuple(self.failed.values())
        )

    def preload(self, source: str, priority: int) -> Fetch:
        """The one preload of this source, begun now if it does not run."""
        return self._fetch(source, priority)

    def wanted(self, source: str) -> Fetch:
        """The one fetch of a source that is needed now, begun if it does not run. It goes on whoever leaves."""
        return self._fetch(source)

    def taking(self, source: str, lease: str) -> Fetch:
        """A fetch of one caller's own, which ends with a lease; at once where the model is whole."""
        return self._begun(source, lease, None)

    def _fetch(self, source: str, priority: int | None = None) -> Fetch:
        key = (source, priority is None)
        found = self._fetches.get(key)
        if found is None:
            found = self._fetches[key] = self._begun(source, "", priority)
            found.task.add_done_callback(functools.partial(self._ended, key))
        return found

    def _begun(self, source: str, lease: str, priority: int | None) -> Fetch:
        ensure = functools.partial(self.cache.ensure, source, lease, priority=priority)
        return Fetch(source, lambda tell, stop: self.call(ensure, tell, stop=stop))

    def _ended(self, key: tuple[str, bool], task: "asyncio.Task[Leased]") -> None:
        self._fetches.pop(key, None)
        source, _ = key
        said = ending(source, task)
        outcome = "done" if said.phase == "done" else said.reason
        self.ended[outcome] = self.ended.get(outcome, 0) + 1
        if said.phase == "done":
            log.info("%s is here: %d bytes", source, said.total_bytes)
        elif said.reason == FetchStoppedError.reason:
            log.info("%s", said.message)
        else:
            log.warning("%s could not be had (%s): %s", source, said.reason, said.message)


def ending(source: str, task: "asyncio.Task[Leased]") -> Progress:
    """Of a task that is done. What is no CacheError is our own mistake: logged whole, told without details."""
    error = None if task.cancelled() else task.exception()
    if task.cancelled():
        return Progress(source=source, phase="failed", reason="Stopped", message="this cache instance is ending")
    if error is None:
        return task.result().progress(source)
    if isinstance(error, CacheError):
        return Progress(
            source=source,
            phase="failed",
            reason=error.reason,
            message=error.message,
            retry_after_s=error.retry_after_s,
        )
    log.error("%s: %s", source, type(error).__name__, exc_info=error)
    message = f"{source}: {type(error).__name__} in the cache; its log says more"
    return Progress(source=source, phase="failed", reason=CacheError.reason, message=message)


def line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"
