"""What models' files say, read in a few threads: no pass ever waits for a hub or a disk."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.source import HubAccess

AT_ONCE = 8
AGAIN_S = 15.0
"""Files that could not be read are tried again this often."""

Facts = ModelFacts | CacheError


@dataclass(frozen=True, slots=True)
class Question:
    """What is read to know a source: itself, or the commit that it once resolved to; and where."""

    source: str
    access: HubAccess


Read = Callable[[Question], Facts]


class FactsBook:
    """Facts hold for as long as a model names their source, so that a branch that moves restarts nothing."""

    def __init__(self, read: Read, news: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._news, self._clock = read, news, clock
        self._known: dict[str, tuple[Facts, float]] = {}
        self._asked: set[str] = set()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="facts")

    def of(self, sources: Mapping[str, Question]) -> dict[str, Facts]:
        """`spec.model` → facts, of those known now; the others are asked for, and `news` is called when they come."""
        self._forget(sources)
        known: dict[str, Facts] = {}
        for source, question in sources.items():
            facts, at_s = self._known.get(source, (None, 0.0))
            if facts is None or (isinstance(facts, CacheError) and self._clock() - at_s >= AGAIN_S):
                self._ask(source, question)
            if facts is not None:
                known[source] = facts
        return known

    @property
    def troubled(self) -> bool:
        """Something is to be tried again."""
        return any(isinstance(facts, CacheError) for facts, _ in self._known.values())

    def close(self) -> None:
        """Threads that hang in a hub's connection must not keep the operator from ending."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, sources: Iterable[str]) -> None:
        for source in self._known.keys() - set(sources):
            del self._known[source]

    def _ask(self, source: str, question: Question) -> None:
        if source not in self._asked:
            self._asked.add(source)
            loop = asyncio.get_running_loop()
            task = loop.run_in_executor(self._threads, self._read, question)
            task.add_done_callback(lambda done: self._answered(source, done))

    def _answered(self, source: str, done: "asyncio.Future[Facts]") -> None:
        self._asked.discard(source)
        if done.cancelled():
            return
        before = self._known.get(source, (None, 0.0))[0]
        facts = done.result()
        self._known[source] = (facts, self._clock())
        if before is None or not _same(before, facts):
            self._news()


def _same(before: Facts, now: Facts) -> bool:
    if isinstance(before, CacheError) and isinstance(now, CacheError):
        return (before.reason, before.message) == (now.reason, now.message)
    return before == now
