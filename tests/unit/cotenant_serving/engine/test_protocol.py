"""What an engine's answer looks like to the kernel: no write shows that an answer began, and nothing of it."""

import asyncio
from collections.abc import Iterable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from cotenant_serving.engine.asgi import respond
from cotenant_serving.engine.protocol import EngineProtocol

REQUEST = b"GET /state HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """Notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.writes.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def answered(app: Any, request: bytes = REQUEST) -> Wire:
    config = uvicorn.Config(app, interface="asgi3", lifespan="off", log_config=None, server_header=False)
    config.load()
    protocol, wire = EngineProtocol(config, ServerState(), {}), Wire()
    protocol.connection_made(wire)
    protocol.data_received(request)
    async with asyncio.timeout(5):
        while protocol.tasks or not wire.writes:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    return wire


async def test_a_whole_answer_is_one_write():
    async def app(scope, receive, send) -> None:
        await respond(send, 200, b'{"a": 1}')

    (answer,) = (await answered(app)).writes
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'\r\n\r\n{"a": 1}')


async def test_the_head_of_a_stream_comes_with_its_first_event_and_later_ones_at_once():
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"two", "more_body": True})
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})

    first, second, end = (await answered(app)).writes
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert (second, end) == (b"3\r\ntwo\r\n", b"0\r\n\r\n")


async def test_an_answer_that_closes_its_connection_is_sent_before_it_closes():
    async def app(scope, receive, send) -> None:
        await respond(send, 200, b"{}", {"connection": "close"})

    wire = await answered(app)
    assert wire.closed
    assert b"".join(wire.writes).endswith(b"\r\n\r\n{}")
