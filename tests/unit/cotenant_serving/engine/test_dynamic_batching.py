"""Which items share a batch, when it begins, and who fails when one of it is bad."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cotenant_serving.engine.base import GenerationError
from cotenant_serving.engine.dynamic_batching import (
    PADDED_FREELY,
    BatchLimits,
    DynamicBatcher,
    Item,
    Waiting,
    Work,
    window,
)

LIMITS = BatchLimits(max_rows=4, max_padded_tokens=400, wait_s=1.0)


def texts(*lengths: int) -> list[Work]:
    return [Work(payload=length, length=length) for length in lengths]


def all_batches(waiting: Waiting) -> list[list[Item]]:
    batches = []
    while batch := waiting.take():
        batches.append(batch)
    return batches


def lengths(batch: Sequence[Item]) -> list[int]:
    return [item.work.length for item in batch]


requests_of_texts = some.lists(some.lists(some.integers(1, 100), min_size=1, max_size=9), min_size=1, max_size=9)


@settings(deadline=None)
@given(requests_of_texts)
def test_every_item_is_computed_once_within_all_limits(requests: list[list[int]]) -> None:
    waiting = Waiting(LIMITS)
    for owner, wanted in enumerate(requests):
        waiting.add(str(owner), texts(*wanted), now_s=0.0)
    batches = all_batches(waiting)
    served = [(item.owner, item.index) for batch in batches for item in batch]
    assert sorted(served) == sorted((str(o), i) for o, wanted in enumerate(requests) for i in range(len(wanted)))
    assert len(waiting) == 0
    assert waiting.due_s() is None
    for batch in batches:
        longest, shortest = max(lengths(batch)), min(lengths(batch))
        assert len(batch) <= LIMITS.max_rows
        assert longest * len(batch) <= LIMITS.max_padded_tokens
        assert longest <= max(2 * shortest, PADDED_FREELY)


@settings(deadline=None)
@given(requests_of_texts)
def test_nobody_waits_for_more_batches_than_there_are_requests(requests: list[list[int]]) -> None:
    waiting = Waiting(LIMITS)
    for owner, wanted in enumerate(requests):
        waiting.add(str(owner), texts(*wanted), now_s=0.0)
    unserved = {str(owner): 0 for owner in range(len(requests))}
    left = {str(owner): len(wanted) for owner, wanted in enumerate(requests)}
    while batch := waiting.take():
        for item in batch:
            left[item.owner] -= 1
        for owner in [owner for owner, count in left.items() if count]:
            unserved[owner] = 0 if owner in {item.owner for item in batch} else unserved[owner] + 1
            assert unserved[owner] < len(requests)


@settings(deadline=None)
@given(requests_of_texts, some.sets(some.integers(0, 8)))
def test_what_a_cancelled_request_left_waiting_is_dropped(requests: list[list[int]], gone: set[int]) -> None:
    waiting = Waiting(LIMITS)
    for owner, wanted in enumerate(requests):
        waiting.add(str(owner), texts(*wanted), now_s=0.0)
    first = waiting.take()
    for owner in gone:
        waiting.drop(str(owner))
    rest = [item for batch in all_batches(waiting) for item in batch]
    assert not {item.owner for item in rest} & {str(owner) for owner in gone}
    kept = [owner for owner in range(len(requests)) if owner not in gone]
    taken_before = sum(item.owner in map(str, kept) for item in first)
    assert len(rest) == sum(len(requests[owner]) for owner in kept) - taken_before


def test_a_batch_is_of_the_lengths_nearest_to_the_item_whose_turn_it_is() -> None:
    items = [Item("a", index, Work(None, length)) for index, length in enumerate([3, 40, 44, 50, 70, 99])]
    assert window(items, 3, LIMITS) == (1, 5)
    assert window(items, 0, LIMITS) == (0, 1)


def test_an_item_beyond_the_limits_is_computed_alone() -> None:
    waiting = Waiting(LIMITS)
    waiting.add("a", texts(900, 890), now_s=0.0)
    assert [lengths(batch) for batch in all_batches(waiting)] == [[900], [890]]


def test_one_item_passes_a_request_with_many() -> None:
    waiting = Waiting(LIMITS)
    waiting.add("many", texts(*[10] * 40), now_s=0.0)
    waiting.take()
    waiting.add("one", texts(90), now_s=0.1)
    waiting.take()
    assert [item.owner for item in waiting.take()] == ["one"]


def test_only_what_has_the_same_key_shares_a_batch() -> None:
    waiting = Waiting(LIMITS)
    waiting.add("a", [Work("a", key=(2, 3)), Work("b", key=(2, 4)), Work("c", key=(2, 3))], now_s=0.0)
    assert [[item.work.payload for item in batch] for batch in all_batches(waiting)] == [["a", "c"], ["b"]]


def test_rows_are_counted_not_items() -> None:
    waiting = Waiting(LIMITS)
    waiting.add("a", [Work(rows, rows=rows) for rows in (3, 2, 1, 4)], now_s=0.0)
    assert [sum(item.work.rows for item in batch) for batch in all_batches(waiting)] == [3, 3, 4]


def test_a_batch_is_due_when_it_is_full_or_its_first_item_has_waited() -> None:
    waiting = Waiting(LIMITS)
    assert waiting.due_s() is None
    waiting.add("a", texts(5), now_s=10.0)
    assert waiting.due_s() == 11.0
    waiting.add("b", texts(5), now_s=10.6)
    assert waiting.due_s() == 11.0
    waiting.add("c", texts(5, 5), now_s=10.7)
    due_s = waiting.due_s()
    assert due_s is not None
    assert due_s <= 10.7


@pytest.mark.parametrize(
    ("waiting_lengths", "full"), [((201,), True), ((200,), False), ((130, 130, 130), True), ((100, 134, 100), False)]
)
def test_a_batch_without_room_for_another_item_is_due_at_once(waiting_lengths: tuple[int, ...], full: bool) -> None:
    waiting = Waiting(LIMITS)
    waiting.add("a", texts(*waiting_lengths), now_s=10.0)
    assert waiting.due_s() == (10.0 if full else 11.0)


class Model:
    """Computes `payload * 10`; "bad" fails, "odd" comes back as an error. Batches wait for `gate`."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, payloads: Sequence[Any]) -> list[Any]:
        self.batches.append(list(payloads))
        self.begun.set()
        self.gate.wait(5)
        if "bad" in payloads:
            raise ValueError("no good")
        return [GenerationError("odd one") if payload == "odd" else payload * 10 for payload in payloads]


@contextmanager
def batcher(model: Model, **changes: Any) -> Iterator[DynamicBatcher]:
    limits = BatchLimits(**{"max_rows": 4, "max_padded_tokens": 400, "wait_s": 0.01} | changes)
    made = DynamicBatcher(model, limits, is_fatal=lambda error: isinstance(error, ZeroDivisionError))
    try:
        yield made
    finally:
        model.gate.set()
        made.close()


def works(*payloads: Any) -> list[Work]:
    return [Work(payload) for payload in payloads]


async def test_requests_that_come_together_share_a_batch_and_get_their_own_results_in_order() -> None:
    model = Model()
    with batcher(model, wait_s=60.0) as shared:  # it is full long before
        found = await asyncio.gather(*(shared.run(f"r{index}", works(index)) for index in range(4)))
    assert found == [[0], [10], [20], [30]]
    assert model.batches == [[0, 1, 2, 3]]


async def test_a_request_with_more_than_a_batch_is_spread_over_several() -> None:
    model = Model()
    with batcher(model) as shared:
        assert await shared.run("r", works(*range(11))) == [10 * index for index in range(11)]
    assert [len(batch) for batch in model.batches] == [4, 4, 3]


async def test_one_bad_item_fails_its_request_and_no_neighbour() -> None:
    model = Model()
    with batcher(model) as shared:
        found = await asyncio.gather(
            shared.run("a", works(1)),
            shared.run("b", works(5, "bad")),
            shared.run("c", works(2)),
            return_exceptions=True,
        )
    assert [found[0], found[2]] == [[10], [20]]
    assert isinstance(found[1], GenerationError)
    assert found[1].code == "computation_failed"
    assert "Input 1 could not be computed: ValueError: no good" in found[1].message


async def test_an_item_that_comes_back_as_an_error_fails_its_request_alone() -> None:
    model = Model()
    with batcher(model, max_rows=2, wait_s=60.0) as shared:
        found = await asyncio.gather(shared.run("a", works("odd")), shared.run("b", works(2)), return_exceptions=True)
    assert isinstance(found[0], GenerationError)
    assert found[0].message == "odd one"
    assert found[1] == [20]
    assert len(model.batches) == 1


async def test_the_rest_of_a_failed_request_is_not_computed() -> None:
    model = Model()
    with batcher(model, max_rows=1) as shared:
        with pytest.raises(GenerationError):
            await shared.run("a", works("bad", 1, 2, 3))
        assert await shared.run("b", works(7)) == [70]
    assert model.batches == [["bad"], [7]]


async def test_what_a_cancelled_request_has_waiting_is_not_computed() -> None:
    model = Model()
    model.gate.clear()
    with batcher(model, max_rows=1) as shared:
        running = asyncio.create_task(shared.run("a", works(1, 2, 3)))
        await asyncio.to_thread(model.begun.wait, 5)
        other = asyncio.create_task(shared.run("b", works(4)))
        await asyncio.sleep(0)
        shared.cancel("a")
        model.gate.set()
        assert await other == [40]
        with pytest.raises(asyncio.CancelledError):
            await running
    assert model.batches == [[1], [4]]


async def test_after_a_fatal_error_nothing_more_is_tried() -> None:
    def broken(payloads: Sequence[Any]) -> Sequence[Any]:
        raise ZeroDivisionError("the device is gone")

    with batcher(Model()) as _:
        shared = DynamicBatcher(broken, BatchLimits(4, 400, 0.0), lambda error: isinstance(error, ZeroDivisionError))
        with pytest.raises(GenerationError, match="the device is gone"):
            await shared.run("a", works(1, 2))
        assert shared.broken
        with pytest.raises(GenerationError) as refused:
            await shared.run("b", works(1))
        assert refused.value.code == "engine_broken"
        shared.close()


async def test_closing_fails_what_waits() -> None:
    model = Model()
    with batcher(model, wait_s=60.0) as shared:
        running = asyncio.create_task(shared.run("a", works(1)))
        await asyncio.sleep(0)
        shared.close()
        with pytest.raises(GenerationError) as stopped:
            await running
    assert stopped.value.code == "engine_stopped"


async def test_a_batch_before_the_first_request_is_computed_in_the_thread_of_all_batches() -> None:
    """Or else the C library would keep the memory of a pass for two threads."""
    threads: list[int] = []

    def compute(payloads: Sequence[Any]) -> Sequence[Any]:
        threads.append(threading.get_ident())
        return payloads

    made = DynamicBatcher(compute, BatchLimits(4, 400, 0.0))
    try:
        assert await asyncio.to_thread(made.compute_now, ["a", "b"]) == ["a", "b"]
        assert await made.run("r", works("c")) == ["c"]
    finally:
        made.close()
    assert len(set(threads)) == 1


async def test_results_of_a_cancelled_request_are_not_given_to_the_next_with_its_id() -> None:
    model = Model()
    model.gate.clear()
    with batcher(model, wait_s=0.0) as shared:
        old = asyncio.create_task(shared.run("same", works(1, 2)))
        await asyncio.to_thread(model.begun.wait, 5)
        shared.cancel("same")
        new = asyncio.create_task(shared.run("same", works(3, 4)))
        with pytest.raises(asyncio.CancelledError):
            await old
        model.gate.set()
        assert await asyncio.wait_for(new, 5) == [30, 40]


async def test_a_request_after_closing_is_refused_and_not_remembered() -> None:
    with batcher(Model(), wait_s=0.0) as shared:
        shared.close()
        for _ in range(2):
            with pytest.raises(GenerationError) as stopped:
                await shared.run("a", works(1))
            assert stopped.value.code == "engine_stopped"
