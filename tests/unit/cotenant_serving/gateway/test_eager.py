"""Coroutines that run in the callbacks that have what they wait for."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from cotenant_serving.gateway.eager import Signal, Work, as_task, current


class Stage:
    """`ends`: what each work was said to have raised."""

    def __init__(self) -> None:
        self.among: set[Work] = set()
        self.ends: list[BaseException | None] = []
        self.seen: list[object] = []

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> Work:
        work = Work(coroutine, asyncio.get_running_loop(), self.among, self.ends.append)
        work.step()
        return work

    async def wait(self, signal: Signal, name: str) -> None:
        try:
            await signal
            self.seen.append(name)
        except asyncio.CancelledError:
            self.seen.append(f"{name} cancelled")
            raise
        finally:
            self.seen.append(f"{name} ended")


async def test_a_coroutine_goes_on_in_the_call_that_gives_its_signal() -> None:
    stage, signal = Stage(), Signal()
    work = stage.begin(stage.wait(signal, "a"))
    assert (stage.seen, stage.among) == ([], {work})
    signal.give()
    signal.give()
    assert (stage.seen, stage.ends, stage.among) == (["a", "a ended"], [None], set())


async def test_a_signal_that_was_given_before_is_not_waited_for() -> None:
    stage, signal = Stage(), Signal()
    signal.give()
    stage.begin(stage.wait(signal, "a"))
    assert (stage.seen, stage.ends) == (["a", "a ended"], [None])


async def test_one_coroutine_may_run_inside_the_step_of_another() -> None:
    stage, inner, outer = Stage(), Signal(), Signal()
    stage.begin(stage.wait(inner, "inner"))

    async def gives() -> None:
        me = current()
        inner.give()
        assert current() is me
        await stage.wait(outer, "outer")

    stage.begin(gives())
    outer.give()
    assert stage.seen == ["inner", "inner ended", "outer", "outer ended"]


async def test_what_a_coroutine_raises_is_told_at_its_end() -> None:
    stage, problem = Stage(), ValueError("x")

    async def fails(late: bool) -> None:
        if late:
            await as_task()
        raise problem

    stage.begin(fails(late=False))
    stage.begin(fails(late=True))
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert (stage.ends, stage.among) == ([problem, problem], set())


async def test_a_coroutine_that_waits_for_a_signal_is_cancelled_soon() -> None:
    stage, signal = Stage(), Signal()
    work = stage.begin(stage.wait(signal, "a"))
    work.cancel()
    assert stage.seen == []
    await asyncio.sleep(0)
    assert stage.seen == ["a cancelled", "a ended"]
    assert [type(problem) for problem in stage.ends] == [asyncio.CancelledError]
    signal.give()
    assert len(stage.ends) == 1


async def test_a_cancel_that_is_taken_back_does_nothing() -> None:
    stage, signal = Stage(), Signal()
    work = stage.begin(stage.wait(signal, "a"))
    work.cancel()
    work.uncancel()
    await asyncio.sleep(0)
    signal.give()
    assert stage.seen == ["a", "a ended"]


async def test_a_coroutine_that_waits_for_something_else_becomes_a_task_and_is_cancelled_as_one() -> None:
    stage, signal = Stage(), Signal()

    async def waits() -> None:
        await as_task()
        async with asyncio.timeout(9):
            await stage.wait(signal, "a")

    for turns in range(4):  # the task has not begun, has just begun, waits
        work = stage.begin(waits())
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        while stage.among:
            await asyncio.sleep(0)
    assert len(stage.ends) == 4
    assert {type(problem) for problem in stage.ends} == {asyncio.CancelledError}


async def test_a_cancel_reaches_a_coroutine_whose_task_has_not_begun() -> None:
    stage = Stage()

    async def waits() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            stage.seen.append("ended")

    stage.begin(waits()).cancel()
    while stage.among:
        await asyncio.sleep(0)
    assert stage.seen == ["ended"]


async def test_what_comes_after_a_cancel_comes_too_late() -> None:
    stage, signal = Stage(), Signal()

    async def waits() -> None:
        try:
            await signal
            stage.seen.append("it came")
        except asyncio.CancelledError:
            stage.seen.append("cancelled")

    stage.begin(waits()).cancel()
    signal.give()
    while stage.among:
        await asyncio.sleep(0)
    assert stage.seen == ["cancelled"]


async def test_what_came_between_a_cancel_and_its_undoing_is_not_lost() -> None:
    stage, signal = Stage(), Signal()
    work = stage.begin(stage.wait(signal, "a"))
    work.cancel()
    signal.give()
    work.uncancel()
    while stage.among:
        await asyncio.sleep(0)
    assert stage.seen == ["a", "a ended"]
