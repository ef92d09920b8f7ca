"""One model whose slots several tenants want: real dispatchers on a virtual clock, engines that are only sleeps.

    crowd = Crowd(workers=4, slots=8, seed=1)
    crowd.backlog("steady", 12, mix)
    crowd.flood("greedy", 100, mix)
    crowd.run(600)
    crowd.served["steady"]

A request holds its slot for a time in proportion to its tokens, tells an estimate when it comes and its real tokens
when it ends. Requests of a tenant go to the workers in turn, as connections do.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cotenant_serving.contract_gateway import Table
from cotenant_serving.gateway.board import SharedBoard
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.lane import Ticket
from cotenant_serving.gateway.queue import QueueLimits
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.openai_api import RequestError
from tests.builders import virtual_time
from tests.builders.gateway import row

MODEL = "search/echo"
TOKENS_PER_S = 100.0
HOLD_S = 120.0

Mix = Callable[[random.Random], tuple[int, int]]
"""(estimate, real tokens) of the next request."""


@dataclass(frozen=True)
class Ended:
    tenant: str
    came: float
    began: float
    ended: float
    tokens: int


@dataclass(frozen=True)
class Refused:
    tenant: str
    came: float
    at: float
    code: str
    retry_after_s: float


class Crowd:
    def __init__(self, *, workers: int, slots: int, seed: int, limits: QueueLimits | None = None) -> None:
        self.ended: list[Ended] = []
        self.refused: list[Refused] = []
        self.left_over: dict[str, int] = {}
        """Counts that are not zero at the end."""
        self._workers, self._slots, self._limits, self._seed = workers, slots, limits, seed
        self._plans: list[Callable[[random.Random], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._over = False

    def backlog(self, tenant: str, requests: int, mix: Mix) -> None:
        """So many at every moment."""

        async def ask(rng: random.Random) -> None:
            while not self._over:
                await self._request(tenant, *mix(rng))

        def start(rng: random.Random) -> None:
            for _ in range(requests):
                self._spawn(ask(random.Random(rng.random())))

        self._plans.append(start)

    def flood(self, tenant: str, per_s: float, mix: Mix) -> None:
        """An open loop that does not care for answers."""

        async def send(rng: random.Random) -> None:
            while not self._over:
                await asyncio.sleep(rng.expovariate(per_s))
                self._spawn(self._request(tenant, *mix(rng)))

        self._plans.append(lambda rng: self._spawn(send(rng)))

    def run(self, duration_s: float) -> None:
        """Ends when all that came has ended, too."""
        virtual_time.run(self._run(duration_s))

    def served(self, since_s: float, until_s: float) -> Counter[str]:
        """Tokens, by when they came out of the engine: an answer's come evenly."""
        found: Counter[str] = Counter()
        for one in self.ended:
            overlap = min(one.ended, until_s) - max(one.began, since_s)
            if overlap > 0:
                found[one.tenant] += round(one.tokens * overlap / (one.ended - one.began))
        return found

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, duration_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        boards = [SharedBoard.create(column=0, columns=self._workers)]
        for number in range(1, self._workers):
            boards.append(SharedBoard(os.dup(boards[0].fileno()), column=number, columns=self._workers))
        self._dispatchers = [self._dispatcher(number, board) for number, board in enumerate(boards)]
        rng = random.Random(self._seed)
        for plan in self._plans:
            plan(random.Random(rng.random()))
        await asyncio.sleep(duration_s)
        self._over = True
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        names = [f"waiting of {tenant}" for tenant in {one.tenant for one in self.ended}]
        names += [f"waiting for {MODEL}", "waiting", "engine 127.0.0.1:8800"]
        self.left_over = {name: left for name in names if (left := boards[0].count(name).total())}
        for board in boards:
            board.close()

    def _dispatcher(self, number: int, board: SharedBoard) -> Dispatcher:
        made = Dispatcher(
            clock=self._loop.time,
            rng=random.Random(f"{self._seed} {number}"),
            limits=self._limits,
            board=board,
            worker=number,
            wake=self._wake,
        )
        made.set_reachable(True)
        engine = row(slots=self._slots, port=8800)
        made.set_view(combine([merge(None, Table(epoch="e", sequence=1, engines=(engine,)))]))
        return made

    def _wake(self, worker: int) -> None:
        self._loop.call_later(0.0005, self._dispatchers[worker].woken)

    async def _request(self, tenant: str, estimate: int, tokens: int) -> None:
        self._next += 1
        dispatcher = self._dispatchers[self._next % self._workers]
        came = self._loop.time()
        ticket = Ticket(MODEL, tenant, estimate, entered=came, deadline=came + HOLD_S)
        try:
            engine = await dispatcher.acquire(ticket)
        except RequestError as problem:
            after = float(problem.headers.get("retry-after", 0))
            self.refused.append(Refused(tenant, came, self._loop.time(), problem.code or "", after))
            await asyncio.sleep(0.05)
            return
        began = self._loop.time()
        await asyncio.sleep(tokens / TOKENS_PER_S)
        dispatcher.release(engine)
        dispatcher.settle(ticket, tokens)
        self.ended.append(Ended(tenant, came, began, self._loop.time(), tokens))
