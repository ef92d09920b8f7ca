"""Conductors that are looked at: what was just told counts, and who does not lead tells nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cotenant_operator.conductor_watch import ConductorWatch
from cotenant_operator.lease import FencedError
from cotenant_operator.pool_world import ConductorSeen
from cotenant_serving.contract import Desired, PoolStatus

NAME, URL = "default-0123abcd", "http://conductor"


def said(generation: int, epoch: str = "e", **more: int) -> PoolStatus:
    return PoolStatus(pool="default", epoch=epoch, generation=generation, **more)


def told(generation: int) -> Desired:
    return Desired(generation=generation, pool="default")


class Conductor:
    """Answers a status when the test lets it."""

    def __init__(self) -> None:
        self.now = told(1)
        self.statuses: asyncio.Queue[PoolStatus] = asyncio.Queue()
        self.puts: list[Desired] = []
        self.asked = asyncio.Event()
        self.broken: Exception | None = None

    async def status(self, url: str) -> PoolStatus:
        self.asked.set()
        if self.broken is not None:
            raise self.broken
        return await self.statuses.get()

    async def desired(self, url: str) -> Desired | None:
        return self.now

    async def put(self, url: str, desired: Desired) -> None:
        self.puts.append(desired)
        self.now = desired


@asynccontextmanager
async def watching(
    conductor: Conductor, leads: bool = True
) -> AsyncIterator[tuple[ConductorWatch, asyncio.Queue[str]]]:
    """Follows it; the queue gets a name for each change."""
    changes: asyncio.Queue[str] = asyncio.Queue()

    def fence() -> None:
        if not leads:
            raise FencedError("this operator does not lead")

    watch = ConductorWatch(conductor, changes.put_nowait, every_s=0.0, fence=fence)
    watch.follow(lambda name: True, {NAME: URL})
    try:
        async with asyncio.timeout(20):
            yield watch, changes
    finally:
        await watch.close()


async def test_what_was_told_while_a_look_was_on_its_way_is_not_undone_by_that_look() -> None:
    conductor = Conductor()
    async with watching(conductor) as (watch, changes):
        conductor.statuses.put_nowait(said(1))
        await changes.get()
        conductor.asked.clear()
        await conductor.asked.wait()
        await watch.put(NAME, URL, told(2))
        conductor.statuses.put_nowait(said(1, engines=3))  # it was answered before the conductor heard
        await changes.get()
        assert watch.seen(NAME).desired == told(2)
        conductor.statuses.put_nowait(said(2, engines=3))
        await changes.get()
        assert watch.seen(NAME).desired == told(2)


async def test_who_does_not_lead_tells_no_conductor_anything() -> None:
    conductor = Conductor()
    async with watching(conductor, leads=False) as (watch, _):
        with pytest.raises(FencedError):
            await watch.put(NAME, URL, told(2))
        assert conductor.puts == []


async def test_a_look_that_fails_in_a_way_nobody_thought_of_is_a_problem_and_not_the_last_one() -> None:
    conductor = Conductor()
    conductor.broken = ValueError("a header with secret-token in it")
    async with watching(conductor) as (watch, changes):
        await changes.get()
        assert watch.seen(NAME).problem == "cannot be asked: ValueError"
        conductor.broken = None
        conductor.statuses.put_nowait(said(1))
        await changes.get()
        assert watch.seen(NAME) == ConductorSeen(said(1), "", told(1))
