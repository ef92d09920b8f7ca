"""Several dispatchers of one gateway: slots and bounds hold over all of them, and nobody starves."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.builders.gateway import eventually, row

from cotenant_serving.contract_gateway import EngineRow, Table
from cotenant_serving.gateway.board import LocalBoard, LocalCount, SharedBoard
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.lane import Ticket
from cotenant_serving.gateway.queue import QueueLimits
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.openai_api import RequestError

MODEL = "search/echo"


class Workers:
    """Dispatchers that share a board; `wake` works as it does between processes: later, on the loop."""

    def __init__(self, count: int, *rows: EngineRow, limits: QueueLimits | None = None) -> None:
        self.boards = [SharedBoard.create(column=0, columns=count)]
        for number in range(1, count):
            self.boards.append(SharedBoard(os.dup(self.boards[0].fileno()), column=number, columns=count))
        self.dispatchers = [
            Dispatcher(
                clock=time.monotonic,
                rng=random.Random(number),
                limits=limits,
                board=board,
                worker=number,
                wake=self._wake,
            )
            for number, board in enumerate(self.boards)
        ]
        view = combine([merge(None, Table(epoch="e", sequence=1, engines=rows))])
        for dispatcher in self.dispatchers:
            dispatcher.set_reachable(True)
            dispatcher.set_view(view)

    def _wake(self, worker: int) -> None:
        asyncio.get_running_loop().call_soon(self.dispatchers[worker].woken)

    def acquire(self, worker: int, tenant: str = "search") -> "asyncio.Task[EngineRow]":
        now = time.monotonic()
        return asyncio.create_task(
            self.dispatchers[worker].acquire(Ticket(MODEL, tenant, 10, entered=now, deadline=now + 60))
        )

    def depths(self) -> list[int]:
        return list(self.boards[0].count(f"waiting for {MODEL}").parts())

    def close(self) -> None:
        for board in self.boards:
            board.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(2, row(slots=2))
    yield made
    made.close()


async def test_an_engine_never_gets_more_than_its_slots_from_all_workers(workers: Workers):
    first, second = await workers.acquire(0), await workers.acquire(1)
    third = workers.acquire(1)
    await eventually(lambda: workers.depths() == [0, 1])

    assert workers.dispatchers[0].running(MODEL) == workers.dispatchers[1].running(MODEL) == 2
    assert workers.dispatchers[0].queue_depth(MODEL) == 1
    assert workers.dispatchers[0].demand()[MODEL].running == 1, "each worker reports its own demand"
    workers.dispatchers[0].release(first)
    workers.dispatchers[1].release(second)
    workers.dispatchers[1].release(await third)
    assert workers.dispatchers[0].running(MODEL) == 0


async def test_a_slot_that_one_worker_frees_goes_at_once_to_another_one_where_somebody_waits(workers: Workers):
    held = [await workers.acquire(0), await workers.acquire(0)]
    waiting = workers.acquire(1)
    await eventually(lambda: workers.depths() == [0, 1])

    workers.dispatchers[0].release(held[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert (await waiting).instance == "i1"


async def test_a_newcomer_does_not_overtake_who_waits_in_another_worker(workers: Workers):
    held = [await workers.acquire(0), await workers.acquire(0)]
    waiting = workers.acquire(1)
    await eventually(lambda: workers.depths() == [0, 1])
    workers.dispatchers[0].release(held[0])  # the other worker is being woken for it
    newcomer = workers.acquire(0)

    await waiting
    assert not newcomer.done()
    workers.dispatchers[0].release(held[1])
    await newcomer


async def test_a_worker_with_few_requests_is_served_beside_one_with_many(workers: Workers):
    served: Counter[int] = Counter()

    async def ask(worker: int) -> None:
        while sum(served.values()) < 400:
            held = await workers.acquire(worker)
            served[worker] += 1
            await asyncio.sleep(0)
            workers.dispatchers[worker].release(held)

    await asyncio.gather(*(ask(0) for _ in range(18)), *(ask(1) for _ in range(6)))

    # One tenant waits in each.
    assert 0.3 < served[1] / sum(served.values()) < 0.7
    assert workers.depths() == [0, 0]


async def test_a_slot_left_to_a_worker_that_dies_is_taken_all_the_same(workers: Workers):
    workers.dispatchers[0]._wake = lambda _: None  # nobody hears it
    held = [await workers.acquire(0), await workers.acquire(0)]
    dead = workers.acquire(1)
    await eventually(lambda: workers.depths() == [0, 1])
    mine = workers.acquire(0)
    await eventually(lambda: workers.depths() == [1, 1])

    for one in held:
        workers.dispatchers[0].release(one)
    await mine

    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)
    assert workers.depths() == [0, 0]


async def test_bounds_on_who_waits_hold_over_all_workers():
    workers = Workers(2, limits=QueueLimits(total=2, per_tenant=1))
    try:
        tasks = [workers.acquire(0), workers.acquire(1, "ads")]
        await eventually(lambda: workers.depths() == [1, 1])
        for tenant, code in (("ads", "queue_full"), ("third", "overloaded")):
            with pytest.raises(RequestError) as caught:
                await workers.acquire(0, tenant)
            assert caught.value.code == code
        await cancelled(*tasks)
        assert workers.depths() == [0, 0]
    finally:
        workers.close()


async def test_a_flood_in_one_worker_makes_way_for_a_newcomer_in_another():
    workers = Workers(2, limits=QueueLimits(total=5, per_tenant=4))
    try:
        flood = [workers.acquire(0) for _ in range(4)]
        await eventually(lambda: workers.depths() == [4, 0])
        others = [workers.acquire(1, "ads"), workers.acquire(1, "ads")]
        await eventually(lambda: workers.depths() == [3, 2])

        (shed,) = [task for task in flood if task.done()]
        assert isinstance(problem := shed.exception(), RequestError)
        assert problem.code == "queue_full"
        assert workers.boards[0].count("waiting").total() == 5
        await cancelled(*flood, *others)
        assert workers.boards[0].count("waiting").total() == 0
    finally:
        workers.close()


async def cancelled(*tasks: "asyncio.Task[EngineRow]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Crowd(LocalCount):
    """Another worker takes a place, while there is one, behind the back of whoever looks first and adds later."""

    def total(self) -> int:
        seen = super().total()
        self.add(1 if seen < 2 else 0)
        return seen


class CrowdedBoard(LocalBoard):
    def __init__(self) -> None:
        super().__init__()
        self.crowds = {"waiting": Crowd(), "waiting of search": Crowd()}

    def count(self, name: str) -> LocalCount:
        return self.crowds.get(name) or super().count(name)


async def test_bounds_on_who_waits_are_exact_whatever_other_workers_do_meanwhile():
    board = CrowdedBoard()
    limits = QueueLimits(total=2, per_tenant=2)
    dispatcher = Dispatcher(clock=time.monotonic, rng=random.Random(1), limits=limits, board=board)
    dispatcher.set_reachable(True)
    now = time.monotonic()
    tickets = [Ticket(MODEL, "search", 10, entered=now, deadline=now + 60) for _ in range(4)]
    tasks = [asyncio.create_task(dispatcher.acquire(ticket)) for ticket in tickets]
    await eventually(lambda: sum(task.done() for task in tasks) == 2)

    assert [count.own() for count in board.crowds.values()] == [2, 2]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [count.own() for count in board.crowds.values()] == [0, 0]


async def test_a_tenant_with_many_requests_in_one_worker_does_not_starve_one_with_few_in_another():
    workers, waits, served = Workers(2, row(slots=1)), [], 0
    over = False

    async def use(worker: int, tenant: str) -> None:
        nonlocal served
        held = await workers.acquire(worker, tenant)
        served += 1
        await asyncio.sleep(0.001)
        workers.dispatchers[worker].release(held)

    async def heavy() -> None:
        while not over:
            await use(0, "search")

    async def light() -> None:
        for _ in range(40):
            before = served
            await use(1, "ads")
            waits.append(served - before)

    tasks = [asyncio.create_task(heavy()) for _ in range(60)]
    try:
        await light()
    finally:
        over = True
        await asyncio.gather(*tasks)
        workers.close()
    assert sum(waits) / len(waits) < 10, "in turn would be 2; in proportion to requests it is more than 30"
