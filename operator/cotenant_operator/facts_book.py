"""What models' files say, read in a few threads: no pass ever waits for a hub or a disk."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Thread

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.rests import MOST_S
from cotenant_cache.source import HubAccess
from cotenant_operator.pool_hubs import Sought

AT_ONCE = 8
AGAIN_S = 15.0
"""Files that could not be read are tried again this often, unless their hub asks to be left alone for longer."""

Facts = ModelFacts | CacheError


@dataclass(frozen=True, slots=True)
class Question:
    """What is read to know a source: itself, or the commit that it once resolved to; and where."""

    source: str
    access: HubAccess


Read = Callable[[Question], Facts]
"""Never raises."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, when, in seconds of the book's clock, and to which question; None: it was recalled."""

    facts: Facts
    at_s: float
    question: Question | None = None


class FactsBook:
    """Facts hold for as long as a model names their source, so that a branch that moves restarts nothing.

    What one hub says with one pool's token is an answer to those alone who may ask there.
    """

    def __init__(self, read: Read, news: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._news, self._clock = read, news, clock
        self._known: dict[Sought, Answer] = {}
        self._asked: set[Sought] = set()
        self._waiting: deque[tuple[Sought, Question]] = deque()
        self._reading = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def recall(self, facts: Mapping[Sought, ModelFacts]) -> None:
        """These are known and no others: what was learnt in an earlier term may not be what the last leader knew."""
        self._known = {sought: Answer(said, self._clock()) for sought, said in facts.items()}

    async def answered(self, limit_s: float) -> None:
        """Until all that was asked has an answer, but for no longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()

    def of(self, questions: Mapping[Sought, Question]) -> dict[Sought, Facts]:
        """Facts of those known now; the others are asked for, and `news` is called when they come."""
        self._forget(questions)
        known: dict[Sought, Facts] = {}
        for sought, question in questions.items():
            answer = self._known.get(sought)
            if answer is None or _due(answer, question, self._clock()):
                self._ask(sought, question)
            if answer is not None:
                known[sought] = answer.facts
        return known

    @property
    def troubled(self) -> bool:
        """Something is to be tried again."""
        return any(isinstance(answer.facts, CacheError) for answer in self._known.values())

    def _forget(self, wanted: Iterable[Sought]) -> None:
        for sought in self._known.keys() - set(wanted):
            del self._known[sought]

    def _ask(self, sought: Sought, question: Question) -> None:
        if sought not in self._asked:
            self._asked.add(sought)
            self._quiet.clear()
            self._waiting.append((sought, question))
            self._begin()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._reading < AT_ONCE:
            self._reading += 1
            # A daemon: a hub that hangs must not keep the operator from ending.
            Thread(target=self._work, args=(loop, *self._waiting.popleft()), name="facts", daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop, sought: Sought, question: Question) -> None:
        facts = self._read(question)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._answered, sought, question, facts)

    def _answered(self, sought: Sought, question: Question, facts: Facts) -> None:
        self._reading -= 1
        self._asked.discard(sought)
        if not self._asked:
            self._quiet.set()
        before = self._known.get(sought)
        self._known[sought] = Answer(facts, self._clock(), question)
        self._begin()
        if before is None or not _same(before.facts, facts):
            self._news()


def _due(answer: Answer, question: Question, now_s: float) -> bool:
    """Whether it is to be asked again: not while the hub asked to be left alone, which counts for one token alone."""
    if not isinstance(answer.facts, CacheError):
        return False
    rest_s = min(answer.facts.retry_after_s or 0.0, MOST_S) if answer.question == question else 0.0
    return now_s - answer.at_s >= max(AGAIN_S, rest_s)


def _same(before: Facts, now: Facts) -> bool:
    if isinstance(before, CacheError) and isinstance(now, CacheError):
        return (before.reason, before.message) == (now.reason, now.message)
    return before == now
