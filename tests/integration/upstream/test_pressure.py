"""What clients of engines hold when one side is faster than the other; and large bodies on their way out."""

import asyncio
import tracemalloc

import pytest
from msgspec.structs import replace
from tests.builders.gateway import eventually
from tests.builders.raw_engine import END, OK, STREAM, RawEngine, Talk, chunk
from tests.builders.upstreams import CHAT, ask, whole

from cotenant_serving.gateway.upstream import EngineLostError, Upstream
from cotenant_serving.gateway.upstream_lean import LeanUpstream

MIB = 1 << 20
PIECE = b"x" * (64 << 10)
TOTAL = 64 * MIB
MOST_ON_THE_WAY = 24 * MIB
"""What both kernels' socket buffers on loopback may take, and a client beside them. Far less than TOTAL."""


class Pouring:
    """A script that says TOTAL bytes as fast as the client takes them; `said`: how far it got."""

    def __init__(self) -> None:
        self.said = 0

    async def __call__(self, talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM)
        while self.said < TOTAL:
            await talk.say(chunk(PIECE))
            self.said += len(PIECE)
        await talk.say(END)

    async def stalled(self) -> int:
        """Returns when it gets no further."""
        said = -1
        while said != self.said:
            said = self.said
            await asyncio.sleep(0.1)
        return said


async def test_an_engine_waits_while_nobody_takes_its_answer(upstream: Upstream) -> None:
    async with RawEngine(script := Pouring()) as engine:
        answer = await ask(upstream, engine)
        assert await script.stalled() < MOST_ON_THE_WAY
        assert len(await answer.read(limit=TOTAL)) == TOTAL


async def test_an_engine_waits_while_the_client_is_slow(upstream: Upstream) -> None:
    taken = 0

    def put(piece: bytes) -> bool:
        nonlocal taken
        taken += len(piece)
        if taken == len(piece):
            answer.pause()
        return True

    async with RawEngine(script := Pouring()) as engine:
        answer = await ask(upstream, engine)
        relaying = asyncio.create_task(answer.relay(put))
        assert await script.stalled() < MOST_ON_THE_WAY
        assert taken < MIB
        answer.resume()
        await relaying
        assert taken == TOTAL


async def test_a_client_that_was_slow_before_the_relay_is_still_slow_in_it(lean: LeanUpstream) -> None:
    async with RawEngine(script := Pouring()) as engine:
        answer = await ask(lean, engine)
        answer.pause()
        got: list[int] = []
        relaying = asyncio.create_task(answer.relay(lambda piece: got.append(len(piece)) is None))
        assert await script.stalled() < MOST_ON_THE_WAY
        assert sum(got) < MIB
        answer.resume()
        await relaying
        assert sum(got) == TOTAL


async def test_a_connection_is_read_again_after_an_answer_that_ended_in_a_pause(lean: LeanUpstream) -> None:
    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(STREAM + chunk(b"x") + END)

    def put(_: bytes) -> bool:
        answer.pause()
        return True

    async with RawEngine(script) as engine:
        for _ in range(3):
            answer = await ask(lean, engine)
            await answer.relay(put)
        assert len(engine.talks) == 1


@pytest.mark.parametrize("size", [1, 40_000, 600_000, 20 * MIB])
async def test_a_body_arrives_whole_whatever_its_size(upstream: Upstream, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"y" * (size % 256)
    heard: list[bytes] = []

    async def script(talk: Talk) -> None:
        while True:
            heard.append((await talk.request()).body)
            await talk.say(OK)

    async with RawEngine(script) as engine:
        for _ in range(2):
            assert await whole(upstream, engine, replace(CHAT, body=body)) == (200, b"hello")
        assert heard == [body, body]
        assert len(engine.talks) == 1


async def test_a_large_body_waits_for_its_engine_and_the_loop_for_nobody(lean: LeanUpstream) -> None:
    read = asyncio.Event()

    async def script(talk: Talk) -> None:
        head = await talk.head()
        await read.wait()
        await talk.reader.readexactly(TOTAL)
        assert b"content-length: %d\r\n" % TOTAL in head
        await talk.say(OK)

    body = bytes(TOTAL)
    async with RawEngine(script) as engine:
        tracemalloc.start()
        try:
            waiting = asyncio.create_task(whole(lean, engine, replace(CHAT, body=body)))
            await eventually(lambda: engine.talks)
            await asyncio.sleep(0.2)
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB  # of 64: the body is not copied
        finally:
            tracemalloc.stop()
        assert not waiting.done()
        read.set()
        assert await waiting == (200, b"hello")


@pytest.mark.parametrize("size", [100, 20 * MIB])
async def test_an_answer_that_comes_before_the_body_is_sent_is_the_answer(upstream: Upstream, size: int) -> None:
    said = b"HTTP/1.1 421 Misdirected\r\nx-cotenant-refused: misdirected\r\ncontent-length: 2\r\n\r\n{}"

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(said)
        await talk.until_left()

    async with RawEngine(script) as engine:
        answer = await ask(upstream, engine, replace(CHAT, body=bytes(size)))
        assert (answer.status, await answer.read()) == (421, b"{}")
        await answer.close()


async def test_a_connection_with_half_a_request_on_it_is_not_used_again(lean: LeanUpstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(OK)
        await talk.until_left()

    async with RawEngine(script) as engine:
        for number in (1, 2):
            assert await whole(lean, engine, replace(CHAT, body=bytes(20 * MIB))) == (200, b"hello")
            await asyncio.wait_for(engine.talks[number - 1].left.wait(), 30)
            assert len(engine.talks) == number


async def test_an_engine_that_leaves_in_the_middle_of_a_body_is_lost(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.head()
        talk.reset()

    async with RawEngine(script) as engine:
        with pytest.raises(EngineLostError):
            await ask(upstream, engine, replace(CHAT, body=bytes(20 * MIB)))


async def test_who_waits_when_the_client_is_closed_is_told(lean: LeanUpstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM + chunk(b"x"))
        await talk.request()

    async def silent(talk: Talk) -> None:
        await talk.until_left()

    async with RawEngine(script) as engine, RawEngine(silent) as other:
        answer = await ask(lean, engine)
        waiting = [asyncio.create_task(answer.relay(lambda _: True)), asyncio.create_task(ask(lean, other))]
        await eventually(lambda: other.talks)
        await lean.close()
        for task in waiting:
            with pytest.raises(EngineLostError):
                await task
