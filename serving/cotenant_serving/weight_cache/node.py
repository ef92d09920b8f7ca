"""One cache instance at work: what it fetches, for whom, and what it could not have.

Calls of the cache block, so each runs in a thread; everything here is touched by the event loop alone.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import msgspec

from cotenant_cache.cache import Cache
from cotenant_cache.contract import NodeReport, Progress
from cotenant_cache.errors import CacheError
from cotenant_cache.shelving import Leased

EVERY_S = 1.0
"""Those who wait hear something at least so often."""
RELEASE_AGAIN_S = 5.0
CALLS_AT_ONCE = 64
"""Threads: most of them wait for one that fetches."""

log = logging.getLogger("cotenant.cache")
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Fetch:
    """An `ensure` that runs, and everyone who hears of it."""

    task: "asyncio.Task[Leased]"
    said: Progress
    news: asyncio.Event = field(default_factory=asyncio.Event)


class CacheNode:
    """`name` of the node, as it stands in its reports."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache, self.name = cache, name
        self.failed: dict[str, Progress] = {}
        """Of the preload list: what could not be had, and why."""
        self.ended: dict[str, int] = {}
        """Reason (`done`, or a CacheError's) → fetches that ended with it."""
        self._fetches: dict[tuple[str, bool], _Fetch] = {}
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

    def preload(self, source: str, priority: int) -> "asyncio.Task[Leased]":
        """The one preload of this source, begun now if it does not run."""
        return self._fetch(source, priority).task

    async def follow(self, source: str) -> AsyncGenerator[Progress, None]:
        """What the fetch of a source that is needed now says until its end: `done`, or `failed` with the reason.

        It is begun if it does not run, and goes on whoever leaves.
        """
        fetch = self._fetch(source)
        while not fetch.task.done():
            yield fetch.said
            fetch.news.clear()
            news = asyncio.create_task(fetch.news.wait())
            await asyncio.wait((fetch.task, news), timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        yield ending(source, fetch.task)

    def _fetch(self, source: str, priority: int | None = None) -> _Fetch:
        key = (source, priority is None)
        found = self._fetches.get(key)
        if found is None:
            loop = asyncio.get_running_loop()

            def told(progress: Progress) -> None:
                loop.call_soon_threadsafe(self._said, key, progress)

            job = self.call(self.cache.ensure, source, "", told, priority=priority)
            task = asyncio.create_task(job, name=f"ensure {source}")
            found = self._fetches[key] = _Fetch(task, Progress(source=source, phase="waiting"))
            task.add_done_callback(functools.partial(self._ended, key))
        return found

    def _said(self, key: tuple[str, bool], said: Progress) -> None:
        if (fetch := self._fetches.get(key)) is not None:
            fetch.said = said
            fetch.news.set()

    def _ended(self, key: tuple[str, bool], task: "asyncio.Task[Leased]") -> None:
        self._fetches.pop(key, None)
        source, _ = key
        said = ending(source, task)
        outcome = "done" if said.phase == "done" else said.reason
        self.ended[outcome] = self.ended.get(outcome, 0) + 1
        if said.phase == "done":
            log.info("%s is here: %d bytes", source, said.total_bytes)
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
        return Progress(source=source, phase="failed", reason=error.reason, message=error.message)
    log.error("%s: %s", source, type(error).__name__, exc_info=error)
    message = f"{source}: {type(error).__name__} in the cache; its log says more"
    return Progress(source=source, phase="failed", reason=CacheError.reason, message=message)


def line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"
