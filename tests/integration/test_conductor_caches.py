"""The conductor asks weight caches what they have; those that are silent, lie or hang hold nobody up."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
import pytest
from tests.builders.cached_models import USAGE
from tests.builders.loopback_server import LoopbackServer
from tests.builders.ports import free_port

from cotenant_cache.contract import CachedModel, NodeReport
from cotenant_serving.conductor.caches import FORGET_S, Caches

COMMIT = "a" * 40
SOURCE = f"hf://org/chat@{COMMIT}"
NODE, OTHER, NOBODY = "127.0.0.1", "127.0.0.2", "127.0.0.3"
REPORT = msgspec.json.encode(
    NodeReport(
        node="n1",
        usage=USAGE,
        models=(CachedModel(repo="org/chat", commit=COMMIT, size_bytes=9, present_bytes=9, files=1, verified=True),),
    )
)


class FakeCaches:
    """Answers on several addresses of loopback at one port. `answers`: address → status and body; None hangs."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes] | None] = {}
        self.asked: list[str] = []
        self._servers: list[LoopbackServer] = []
        self.port = 0

    async def start(self, *nodes: str) -> None:
        self.port = self.port or free_port()
        for node in nodes:
            server = LoopbackServer(self._converse(node), host=node)
            await server.start(self.port)
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop()

    def _converse(self, node: str) -> Callable[..., object]:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self.answers[node]
            if answer is None:
                await asyncio.Event().wait()
            assert answer is not None
            status, body = answer
            head = f"HTTP/1.1 {status} X\r\nlocation: http://{NODE}/\r\ncontent-length: {len(body)}\r\n"
            writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
            await writer.drain()
            writer.close()

        return converse


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def fakes() -> AsyncIterator[FakeCaches]:
    fakes = FakeCaches()
    await fakes.start(NODE, OTHER)
    yield fakes
    await fakes.stop()


async def ask(caches: Caches, *nodes: str, timeout_s: float = 5.0) -> dict[str, frozenset[str]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
        await caches.ask(session, nodes)
    return {node: cache.sources for node, cache in caches.known().items()}


async def test_each_node_is_asked_with_the_pools_token(fakes: FakeCaches) -> None:
    fakes.answers = {NODE: (200, REPORT)}
    assert await ask(Caches(fakes.port, lambda: "pool-token"), NODE) == {NODE: {SOURCE}}
    assert fakes.asked[0].startswith("GET /v1/models HTTP/1.1\r\n")
    assert "authorization: bearer pool-token" in fakes.asked[0].lower()


async def test_a_node_without_a_cache_is_unknown_and_the_others_are_not(fakes: FakeCaches) -> None:
    fakes.answers = {NODE: (200, REPORT)}
    assert await ask(Caches(fakes.port, lambda: "t"), NODE, NOBODY) == {NODE: {SOURCE}}


async def test_a_node_that_hangs_is_given_up_and_the_others_are_heard(fakes: FakeCaches) -> None:
    fakes.answers = {NODE: (200, REPORT), OTHER: None}
    assert await ask(Caches(fakes.port, lambda: "t"), NODE, OTHER, timeout_s=3) == {NODE: {SOURCE}}


@pytest.mark.parametrize("answer", [(401, b"{}"), (200, b"<html>"), (200, b'{"node": 1}'), (302, b"")])
async def test_an_answer_that_is_none_is_as_silence(fakes: FakeCaches, answer: tuple[int, bytes]) -> None:
    fakes.answers = {NODE: (200, REPORT), OTHER: answer}
    assert await ask(Caches(fakes.port, lambda: "t"), OTHER) == {}


async def test_what_a_node_said_holds_for_a_while_when_it_falls_silent(fakes: FakeCaches) -> None:
    clock = Clock()
    caches = Caches(fakes.port, lambda: "t", clock=clock)
    fakes.answers = {NODE: (200, REPORT)}
    await ask(caches, NODE)
    fakes.answers = {NODE: (503, b"")}
    clock.now_s = FORGET_S - 1
    assert await ask(caches, NODE) == {NODE: {SOURCE}}
    clock.now_s = FORGET_S
    assert await ask(caches, NODE) == {}


async def test_a_node_that_has_left_is_forgotten(fakes: FakeCaches) -> None:
    fakes.answers = {NODE: (200, REPORT), OTHER: (200, REPORT)}
    caches = Caches(fakes.port, lambda: "t")
    assert set(await ask(caches, NODE, OTHER)) == {NODE, OTHER}
    assert set(await ask(caches, OTHER)) == {OTHER}


async def test_it_is_asked_again_and_again_until_it_is_cancelled(fakes: FakeCaches) -> None:
    fakes.answers = {NODE: (200, REPORT)}
    caches = Caches(fakes.port, lambda: "t")
    running = asyncio.create_task(caches.run(lambda: [NODE]))
    async with asyncio.timeout(10):
        while not caches.known():
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
