"""Rounds: what happens during one is one next round, errors are tried again, keys do not wait for each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cotenant_operator.rounds import LONGEST_SPACING_S, SOONEST_S, RoundFailedError, Rounds

Round = Callable[[str], Awaitable[float | None]]


class Clock:
    """Sleeps end at once and move the clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += max(0.0, seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def rounds(run: Round, clock: Clock, *, resync_s: float = 1000.0) -> AsyncIterator[Rounds]:
    found = Rounds(run, debounce_s=0.1, resync_s=resync_s, clock=clock, sleep=clock.sleep)
    try:
        yield found
    finally:
        await found.close()


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_marks_before_and_during_a_round_are_one_round_each() -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def run(key: str) -> None:
        seen.append(key)
        await go.wait()

    async with rounds(run, Clock()) as found:
        for _ in range(10):
            found.mark("a")
        await turns()
        assert seen == ["a"]
        for _ in range(10):
            found.mark("a")
        await turns()
        assert seen == ["a"], "two rounds of one key never run side by side"
        go.set()
        await turns()
        assert seen == ["a", "a"]


async def test_a_key_that_hangs_stops_no_other() -> None:
    seen: list[str] = []

    async def run(key: str) -> None:
        if key == "hangs":
            await asyncio.Event().wait()
        seen.append(key)

    async with rounds(run, Clock()) as found:
        found.mark("hangs")
        found.mark("b")
        await turns()
        assert seen == ["b"]


async def test_a_round_that_fails_is_tried_again_ever_later_until_it_succeeds() -> None:
    clock, tries = Clock(), 0

    async def run(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise ValueError("not yet")

    async with rounds(run, clock) as found:
        found.mark("a")
        await turns(200)
        assert tries == 5
        assert found.failures["a"] == 0
    pauses = [pause for pause in clock.slept if pause != 0.1]
    assert all(least <= pause <= 2 * least for least, pause in zip((0.1, 0.2, 0.4, 0.8), pauses, strict=False))


async def test_a_round_whose_shared_work_somebody_cancelled_is_tried_again() -> None:
    shared: list[asyncio.Future[None]] = [asyncio.Future(), asyncio.Future()]
    shared[0].cancel()
    shared[1].set_result(None)
    tries = 0

    async def run(key: str) -> None:
        nonlocal tries
        tries += 1
        await shared[min(tries, 2) - 1]

    async with rounds(run, Clock()) as found:
        found.mark("a")
        await turns()
        assert (tries, found.failures["a"]) == (2, 0)


async def test_a_change_is_looked_at_though_the_rounds_before_have_failed() -> None:
    clock, tries = Clock(), 0

    async def run(key: str) -> None:
        nonlocal tries
        tries += 1
        clock.now_s += 0.01
        raise RoundFailedError("it is refused")

    async with rounds(run, clock) as found:
        found.failures["a"] = 20  # the next pause is half a minute
        found.mark("a")
        await turns()
        assert tries == 1, "it waits"
        found.mark("a")
        await turns()
        assert tries == 2, "once for the change, and waits again"
        assert max(clock.slept) == SOONEST_S


async def test_rounds_of_a_flood_are_apart_by_what_they_take() -> None:
    clock = Clock()

    async def run(key: str) -> None:
        clock.now_s += 0.2
        found.mark("a")

    async with rounds(run, clock) as found:
        found.mark("a")
        await turns(20)
    waits = [round(pause, 3) for pause in clock.slept[1:4]]
    assert waits == [0.8, 0.8, 0.8]
    assert LONGEST_SPACING_S == 1.0


async def test_a_round_may_ask_to_run_again_and_all_run_for_the_resync() -> None:
    counts = {"asks": 0, "quiet": 0}

    async def run(key: str) -> float | None:
        counts[key] += 1
        return 0.0 if key == "asks" and counts[key] < 3 else None

    async with rounds(run, Clock(), resync_s=0.05) as found:
        found.mark("asks")
        found.mark("quiet")
        async with asyncio.timeout(20):
            while counts["quiet"] < 3 or counts["asks"] < 5:
                await asyncio.sleep(0.01)


async def test_a_key_that_is_forgotten_runs_no_more_until_it_is_marked_again() -> None:
    seen = 0

    async def run(key: str) -> None:
        nonlocal seen
        seen += 1
        found.forget(key)

    async with rounds(run, Clock(), resync_s=0.01) as found:
        found.mark("a")
        await turns()
        assert (seen, found.keys) == (1, frozenset())
        found.mark("a")
        await turns()
        assert seen == 2
