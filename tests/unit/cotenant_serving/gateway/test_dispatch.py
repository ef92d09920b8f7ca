import asyncio
import random

import pytest
from tests.builders.gateway import model_row, row

from cotenant_serving.contract import Reason
from cotenant_serving.contract_gateway import Table
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.lane import Ticket
from cotenant_serving.gateway.queue import QueueLimits
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.openai_api import RequestError

MODEL = "search/echo"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(*rows, models=(), clock: Clock | None = None, **limits: int) -> Dispatcher:
    made = Dispatcher(clock=clock or Clock(), rng=random.Random(1), limits=QueueLimits(**limits) if limits else None)
    made.set_reachable(True)
    show(made, *rows, models=models)
    return made


def show(dispatcher: Dispatcher, *rows, models=()) -> None:
    dispatcher.set_view(combine([merge(None, Table(epoch="e", sequence=1, engines=rows, models=models))]))


def ticket(tenant: str = "search", **fields) -> Ticket:
    return Ticket(MODEL, tenant, 100, entered=1000.0, deadline=fields.pop("deadline", 1060.0), **fields)


async def waiting(dispatcher: Dispatcher, *tickets: Ticket) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(dispatcher.acquire(one)) for one in tickets]
    await asyncio.sleep(0)
    return tasks


async def test_a_released_slot_goes_to_the_one_who_waits():
    dispatcher = make(row(slots=1))
    first = await dispatcher.acquire(ticket())
    (second,) = await waiting(dispatcher, ticket())
    assert dispatcher.demand()[MODEL].queued == 1

    dispatcher.release(first)

    assert (await second).instance == "i1"
    assert (dispatcher.running(MODEL), dispatcher.queue_depth(MODEL)) == (1, 0)


async def test_a_new_engine_serves_those_who_wait():
    dispatcher = make()
    tasks = await waiting(dispatcher, ticket(), ticket())
    show(dispatcher, row(slots=2))
    assert [(await task).instance for task in tasks] == ["i1", "i1"]


async def test_one_who_gave_up_leaves_no_trace():
    dispatcher = make(row(slots=1))
    first = await dispatcher.acquire(ticket())
    (second,) = await waiting(dispatcher, ticket())
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    dispatcher.release(first)
    assert (dispatcher.running(MODEL), dispatcher.queue_depth(MODEL)) == (0, 0)
    assert dispatcher.demand()[MODEL].queued == 0
    assert dispatcher.demand() == {}


async def test_a_slot_that_arrives_as_the_request_gives_up_is_not_lost():
    dispatcher = make(row(slots=1))
    first = await dispatcher.acquire(ticket())
    (second,) = await waiting(dispatcher, ticket())
    dispatcher.release(first)  # the slot is the second's now, whose task has not run yet
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert dispatcher.running(MODEL) == 0
    assert (await dispatcher.acquire(ticket())).instance == "i1"


async def refused(dispatcher: Dispatcher, one: Ticket) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await dispatcher.acquire(one)
    return caught.value


async def test_a_tenant_that_has_too_many_waiting_is_refused_and_told_that_it_is_its_own_queue():
    dispatcher = make(total=9, per_tenant=2)
    tasks = await waiting(dispatcher, ticket(), ticket())
    problem = await refused(dispatcher, ticket())
    assert (problem.status, problem.code) == (429, "queue_full")
    show(dispatcher, row(slots=9))
    await asyncio.gather(*tasks)


async def test_a_request_that_waited_in_vain_is_demand_though_nobody_was_told_that_it_waited():
    dispatcher = make()
    (task,) = await waiting(dispatcher, ticket())
    show(dispatcher, models=(model_row("failed", reason=Reason.CORRUPT_WEIGHTS),))
    with pytest.raises(RequestError):
        await task
    assert dispatcher.demand()[MODEL].queued == 1
    assert dispatcher.demand() == {}


async def test_when_all_places_are_taken_the_newest_request_of_who_has_most_makes_way():
    dispatcher = make(total=3, per_tenant=3)
    tickets = [ticket(), ticket(), ticket("ads")]
    for place, one in enumerate(tickets):
        one.entered += place
    oldest, newest, other = await waiting(dispatcher, *tickets)

    (newcomer,) = await waiting(dispatcher, ticket("third"))

    with pytest.raises(RequestError) as caught:
        await newest
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    show(dispatcher, row(slots=9))
    await asyncio.gather(oldest, other, newcomer)
    assert dispatcher.queue_depth(MODEL) == 0


async def test_who_would_only_take_the_place_of_one_like_itself_is_refused_by_the_gateway():
    dispatcher = make(total=2, per_tenant=2)
    tasks = await waiting(dispatcher, ticket(), ticket("ads"))
    for tenant in ("third", "search"):
        problem = await refused(dispatcher, ticket(tenant))
        assert (problem.status, problem.code) == (503, "overloaded")
    show(dispatcher, row(slots=9))
    await asyncio.gather(*tasks)
    assert dispatcher.queue_depth(MODEL) == 0


async def test_a_request_that_was_sent_back_goes_first_and_is_not_refused():
    dispatcher = make(row(slots=1), total=1, per_tenant=1)
    first = await dispatcher.acquire(ticket())
    queued, returned = await waiting(dispatcher, ticket(), ticket(returned=True))
    dispatcher.release(first)
    dispatcher.release(await returned)
    await queued


async def test_waiting_ends_at_the_deadline_with_what_was_missing():
    dispatcher = make(models=(model_row("waiting", reason=Reason.NO_ROOM),))
    with pytest.raises(RequestError) as caught:
        await dispatcher.acquire(ticket(deadline=1000.05))
    assert caught.value.code == "no_capacity"
    assert dispatcher.queue_depth(MODEL) == 0


async def test_a_table_that_says_failed_ends_the_wait():
    dispatcher = make()
    (task,) = await waiting(dispatcher, ticket())
    show(dispatcher, models=(model_row("failed", reason=Reason.LOAD_FAILED),))
    with pytest.raises(RequestError, match="LoadFailed"):
        await task


async def test_a_failed_revision_beside_a_serving_engine_refuses_nobody():
    dispatcher = make(row(slots=1), models=(model_row("failed", reason=Reason.LOAD_FAILED),))
    first = await dispatcher.acquire(ticket())
    (second,) = await waiting(dispatcher, ticket())
    assert not second.done()
    dispatcher.release(first)
    await second


async def test_demand_that_no_conductor_heard_is_reported_again():
    dispatcher = make(models=(model_row("failed", reason=Reason.LOAD_FAILED),))
    with pytest.raises(RequestError):
        await dispatcher.acquire(ticket())
    dispatcher.unheard(dispatcher.demand())
    assert dispatcher.demand()[MODEL].queued == 1
    assert dispatcher.demand() == {}


async def test_a_refused_request_counts_as_demand_once():
    dispatcher = make(models=(model_row("failed", reason=Reason.LOAD_FAILED),))
    with pytest.raises(RequestError):
        await dispatcher.acquire(ticket())
    assert dispatcher.demand()[MODEL].queued == 1
    assert dispatcher.demand() == {}


async def test_a_request_that_came_and_went_between_two_reports_counts_as_one_that_ran():
    dispatcher = make(row())
    for _ in range(3):
        dispatcher.release(await dispatcher.acquire(ticket()))
    assert (dispatcher.demand()[MODEL].running, dispatcher.demand()) == (1, {})


async def test_a_dropped_instance_does_not_come_back_with_the_table():
    dispatcher = make(row("i1"), row("i2", port=8801))
    dispatcher.drop(row("i1"))
    show(dispatcher, row("i1"), row("i2", port=8801))
    assert [one.instance for one in dispatcher.engines(MODEL)] == ["i2"]


async def test_an_engine_that_does_not_answer_rests_and_leaves_if_no_table_names_it():
    clock = Clock()
    dispatcher = make(row("i1"), clock=clock)
    dispatcher.suspect(row("i1"))
    (task,) = await waiting(dispatcher, ticket())
    assert not task.done()
    clock.now += 1.1
    dispatcher.release(row("absent"))  # anything that moves the line
    assert (await task).instance == "i1"

    known = merge(merge(None, Table(epoch="a", sequence=1, engines=(row("i1"),))), Table(epoch="b", sequence=0))
    dispatcher.set_view(combine([known]))
    assert dispatcher.engines(MODEL)
    dispatcher.suspect(row("i1"))
    assert not dispatcher.engines(MODEL)


async def test_the_eta_grows_shorter_with_the_age_of_the_table():
    clock = Clock()
    dispatcher = make(models=(model_row("waking", reason=Reason.WAKING, eta_s=10),), clock=clock)
    clock.now += 4
    assert dispatcher.eta_s(MODEL) == pytest.approx(6)
    clock.now += 100
    assert dispatcher.eta_s(MODEL) == 0
