"""The preload list: a file that says what should be on this node, looked at every few seconds.

A list that cannot be read leaves the one before in force. What could not be had is tried again, ever later; while the
hub is gone that is all that happens.
"""

import asyncio
import logging
import random as randomness
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_cache.contract import PreloadItem, PreloadList
from cotenant_cache.errors import CacheError, FetchStoppedError, HubUnreachableError
from cotenant_cache.shelving import Leased
from cotenant_cache.source import HubSource, parse_source
from cotenant_serving.file_changes import signature_of
from cotenant_serving.weight_cache.node import CacheNode, Fetch, ending

LOOK_S = 2.0
AGAIN_S = 60.0
"""What is here is looked at again: it may have been evicted, or found bad."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0

log = logging.getLogger("cotenant.cache")


@dataclass(slots=True)
class _Try:
    """How it went with one source."""

    failures: int = 0
    not_before: float = 0.0
    fetch: Fetch | None = None
    commit: str = ""


def pause_s(failures: int, asked_s: float, chance: float) -> float:
    """After so many failures in a row: doubling, spread over the upper half, at least as asked."""
    doubled: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
    return max(doubled * (0.5 + chance / 2), asked_s)


def in_order(items: tuple[PreloadItem, ...]) -> list[PreloadItem]:
    """Once each, the most important first; among equals as they stand in the list."""
    best: dict[str, PreloadItem] = {}
    for item in items:
        if item.source not in best or item.priority > best[item.source].priority:
            best[item.source] = item
    return sorted(best.values(), key=lambda item: -item.priority)


class Preload:
    """`at_once` fetches at most run for the list at a time. Those of sources that leave the list are stopped."""

    def __init__(
        self,
        node: CacheNode,
        path: Path,
        *,
        at_once: int = 2,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self._node, self._path, self._at_once, self._clock, self._random = node, path, at_once, clock, random
        self._seen: object = ()
        self._items: list[PreloadItem] = []
        self._tries: dict[str, _Try] = {}
        self._dropped: dict[str, Fetch] = {}
        """By source, of those that were taken off the list, until they have ended."""
        self._kept: object = None

    async def note(self) -> None:
        """Tells the ledger what the list has, before anything can be evicted by somebody who asks for room."""
        self._read()
        await self._keep()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One pass: reads the list if it changed, takes note of what ended, begins what is due."""
        self._read()
        for source, tried in self._tries.items():
            if tried.fetch is not None and tried.fetch.task.done():
                self._note(source, tried, tried.fetch.task)
        if any(fetch.task.done() for fetch in self._dropped.values()):
            self._dropped = {source: fetch for source, fetch in self._dropped.items() if not fetch.task.done()}
            self._kept = None  # the ledger may have them on the list
        await self._keep()
        for item in self._items:
            tried = self._tries[item.source]
            running = len(self._dropped) + sum(one.fetch is not None for one in self._tries.values())
            if running >= self._at_once:
                return
            if tried.fetch is None and item.source not in self._dropped and self._clock() >= tried.not_before:
                tried.fetch = self._node.preload(item.source, item.priority)

    def _read(self) -> None:
        seen = signature_of(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            items = in_order(msgspec.json.decode(self._path.read_bytes(), type=PreloadList).items)
        except (OSError, msgspec.MsgspecError) as error:
            log.error("preload list %s cannot be read, the one before stays in force: %s", self._path, error)
            return
        self._items = items
        sources = {item.source for item in items}
        for source, tried in self._tries.items():
            if source not in sources and tried.fetch is not None:
                tried.fetch.stop()
                self._dropped[source] = tried.fetch
        self._tries = {source: self._tries.get(source, _Try()) for source in sources}
        for gone in self._node.failed.keys() - sources:
            del self._node.failed[gone]

    def _note(self, source: str, tried: _Try, task: "asyncio.Task[Leased]") -> None:
        tried.fetch = None
        said = ending(source, task)
        if said.phase == "done":
            tried.failures, tried.not_before, tried.commit = 0, self._clock() + AGAIN_S, said.commit
            self._node.failed.pop(source, None)
            return
        tried.failures += 1
        error = None if task.cancelled() else task.exception()
        asked_s = (error.retry_after_s or 0.0) if isinstance(error, HubUnreachableError) else 0.0
        tried.not_before = self._clock() + pause_s(tried.failures, asked_s, self._random())
        if not isinstance(error, FetchStoppedError):  # what gave way is no failure; the next try says how it is
            self._node.failed[source] = said

    async def _keep(self) -> None:
        """Tells the ledger what is evicted last; of a branch that was not asked for yet, what it was before.

        What a fetch that runs has put there since is not taken away again.
        """
        known = [(parsed, item) for item in self._items if (parsed := _on_hub(item.source)) is not None]
        kept = tuple(
            (parsed.repo, commit, item.priority)
            for parsed, item in known
            if (commit := self._tries[item.source].commit or self._node.cache.recorded(parsed))
        )
        coming = {parsed.repo for parsed, item in known if self._tries[item.source].fetch is not None}
        if (kept, coming) == self._kept:
            return
        try:
            await self._node.call(self._node.cache.set_preload, kept, coming)
            self._kept = kept, coming
        except CacheError as error:
            log.warning("the preload list cannot be noted in the ledger, it is tried again: %s", error)


def _on_hub(source: str) -> HubSource | None:
    try:
        parsed = parse_source(source)
    except CacheError:
        return None
    return parsed if isinstance(parsed, HubSource) else None
