"""The lean client and time, on a network in memory: deadlines, idle connections, answers that were left."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.builders.gateway import POOL_TOKEN, row
from tests.builders.raw_engine import END, OK, STREAM, chunk
from tests.builders.simulated_network import Network, SimulatedLoop
from tests.builders.upstreams import CHAT

from cotenant_serving.gateway.upstream import (
    CANCEL_S,
    CONNECT_S,
    IDLE_CONNECTION_S,
    EngineLostError,
    EngineUnreachableError,
)
from cotenant_serving.gateway.upstream_connection import MAX_IDLE
from cotenant_serving.gateway.upstream_lean import LEAVE_S, SWEEP_S, LeanUpstream

ROW = row("i1", host="10.0.0.1", port=8800)
SLACK_S = 0.1
"""Of the network, for a few messages."""


class Engine(asyncio.Protocol):
    """Says `pieces` to each request."""

    def __init__(self, stage: "Stage", *pieces: bytes) -> None:
        self.stage, self.pieces = stage, pieces
        self.lost_at: float | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.stage.engines.append(self)

    def data_received(self, data: bytes) -> None:
        for piece in self.pieces:
            self.transport.write(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_at = self.stage.loop.time()


class Stage:
    def __init__(self, *pieces: bytes) -> None:
        self.loop = SimulatedLoop()
        self.network = Network(self.loop, random.Random(1))
        self.engines: list[Engine] = []
        self.network.listening["10.0.0.1", 8800] = lambda: Engine(self, *pieces)

    def run(self, work: Coroutine[Any, Any, None]) -> float:
        """Seconds that it took."""
        began = self.loop.time()
        try:
            self.loop.run_until_complete(work)
            return self.loop.time() - began
        finally:
            self.loop.close()

    def client(self) -> LeanUpstream:
        return LeanUpstream(lambda: POOL_TOKEN, self.network.connect)


def test_an_engine_whose_host_says_nothing_is_unreachable_after_a_deadline() -> None:
    stage = Stage()
    stage.network.listening.clear()
    stage.network.vanished.add(("10.0.0.1", 8800))

    async def work() -> None:
        with pytest.raises(EngineUnreachableError, match="TimeoutError"):
            await stage.client().send(ROW, CHAT, "req-1")

    assert stage.run(work()) == pytest.approx(CONNECT_S, abs=SLACK_S)


def test_a_cancel_has_a_deadline_in_all() -> None:
    stage = Stage()

    async def work() -> None:
        assert await stage.client().cancel(ROW, "req-1") is None

    assert stage.run(work()) == pytest.approx(CANCEL_S, abs=SLACK_S)


def test_connections_that_nobody_used_for_a_while_are_closed_and_the_sweep_ends() -> None:
    stage = Stage(OK)

    async def work() -> None:
        client = stage.client()
        answers = [await client.send(ROW, CHAT, "req-1") for _ in range(3)]
        answers += await asyncio.gather(*(client.send(ROW, CHAT, "req-1") for _ in range(4)))
        began = stage.loop.time()
        await asyncio.sleep(IDLE_CONNECTION_S + SWEEP_S + SLACK_S)
        assert len(stage.engines) == 4
        for engine in stage.engines:
            assert engine.lost_at is not None
            assert began + IDLE_CONNECTION_S <= engine.lost_at + SLACK_S
        await asyncio.sleep(SWEEP_S)
        assert not stage.loop._scheduled  # type: ignore[attr-defined]  # no timer is left
        assert [await answer.read() for answer in answers] == [b"hello"] * 7

    stage.run(work())


@pytest.mark.parametrize(("pause_s", "connections"), [(IDLE_CONNECTION_S - SWEEP_S, 1), (IDLE_CONNECTION_S, 2)])
def test_a_connection_is_used_again_only_while_its_engine_surely_keeps_it(pause_s: float, connections: int) -> None:
    stage = Stage(OK)

    async def work() -> None:
        client = stage.client()
        await client.send(ROW, CHAT, "req-1")
        await asyncio.sleep(pause_s)
        await client.send(ROW, CHAT, "req-2")
        assert len(stage.engines) == connections
        await client.close()

    stage.run(work())


def test_an_answer_that_was_left_and_does_not_end_is_closed_after_a_second() -> None:
    stage = Stage(STREAM + chunk(b"data: [DONE]\n\n"))

    async def work() -> None:
        answer = await stage.client().send(ROW, CHAT, "req-1")
        await answer.relay(lambda _: False)
        await answer.close()
        left = stage.loop.time()
        await asyncio.sleep(LEAVE_S - SLACK_S)
        assert stage.engines[0].lost_at is None
        await asyncio.sleep(SWEEP_S + 2 * SLACK_S)
        assert stage.engines[0].lost_at is not None
        assert stage.engines[0].lost_at - left <= LEAVE_S + SWEEP_S + SLACK_S

    stage.run(work())


def test_an_answer_that_was_left_and_says_more_is_closed_at_once() -> None:
    stage = Stage(STREAM + chunk(b"one"))

    async def work() -> None:
        answer = await stage.client().send(ROW, CHAT, "req-1")
        await answer.relay(lambda _: False)
        await answer.close()
        stage.engines[0].transport.write(chunk(b"two"))
        await asyncio.sleep(SLACK_S)
        assert stage.engines[0].lost_at is not None

    stage.run(work())


def test_a_left_answer_that_ended_does_not_take_the_next_one_with_it() -> None:
    stage = Stage(STREAM + chunk(b"data: [DONE]\n\n"))

    async def work() -> None:
        client = stage.client()
        first = await client.send(ROW, CHAT, "req-1")
        await first.relay(lambda _: False)
        await first.close()
        stage.engines[0].transport.write(END)
        await asyncio.sleep(SLACK_S)
        second = await client.send(ROW, CHAT, "req-2")
        await asyncio.sleep(LEAVE_S + SWEEP_S)
        await second.relay(lambda _: False)
        assert len(stage.engines) == 1
        assert stage.engines[0].lost_at is None
        await client.close()

    stage.run(work())


def test_few_connections_are_kept_of_many() -> None:
    stage = Stage(OK)

    async def work() -> None:
        client = stage.client()
        await asyncio.gather(*(client.send(ROW, CHAT, "req-1") for _ in range(MAX_IDLE + 20)))
        await asyncio.sleep(SLACK_S)
        assert sum(engine.lost_at is None for engine in stage.engines) == MAX_IDLE
        await client.close()

    stage.run(work())


def test_what_was_connected_for_one_engine_is_not_used_for_another_one_at_its_address() -> None:
    stage = Stage(OK)

    async def work() -> None:
        client = stage.client()
        await client.send(ROW, CHAT, "req-1")
        await client.send(row("i2", host="10.0.0.1", port=8800), CHAT, "req-2")
        assert len(stage.engines) == 2
        await client.send(row("i1", host="10.0.0.1", port=8800, running=3), CHAT, "req-3")
        assert len(stage.engines) == 2
        await client.close()

    stage.run(work())


@pytest.mark.parametrize("end", range(1, len(OK) + 1))
def test_two_pieces_are_as_good_as_one(end: int) -> None:
    stage = Stage(OK[:end], OK[end:])

    async def work() -> None:
        client = stage.client()
        for _ in range(2):
            assert await (await client.send(ROW, CHAT, "req-1")).read() == b"hello"
        assert len(stage.engines) == 1
        await client.close()

    stage.run(work())


def test_an_engine_that_says_something_unasked_is_not_asked() -> None:
    stage = Stage(OK)

    async def work() -> None:
        client = stage.client()
        await client.send(ROW, CHAT, "req-1")
        stage.engines[0].transport.write(OK)
        await asyncio.sleep(SLACK_S)
        assert stage.engines[0].lost_at is not None
        await client.send(ROW, CHAT, "req-2")
        assert len(stage.engines) == 2
        await client.close()

    stage.run(work())


def test_a_reset_is_named_and_nothing_else() -> None:
    stage = Stage()

    async def work() -> None:
        asking = asyncio.create_task(stage.client().send(ROW, CHAT, "req-1"))
        await asyncio.sleep(SLACK_S)
        stage.engines[0].transport.lose(ConnectionResetError("secret"))
        with pytest.raises(EngineLostError, match=r"^ConnectionResetError$"):
            await asking

    stage.run(work())
