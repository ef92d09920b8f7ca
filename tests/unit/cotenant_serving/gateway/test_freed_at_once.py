"""What a request held is freed when it ends: bodies do not wait for the garbage collector, which nobody bounds."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from tests.builders.exchange_stage import ExchangeStage, WrittenAnswer
from tests.builders.gateway import event, eventually, raw_connection, raw_request, stream_end

from cotenant_serving.accepting import QuietServer
from cotenant_serving.gateway.board import LocalBoard, LocalCount
from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.connections import Connections, Times
from cotenant_serving.gateway.delivery import Delivery
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.protocol import served_by
from cotenant_serving.gateway.request import Request

ANSWERS = {
    "whole": WrittenAnswer(b"{}", content_type="application/json"),
    "streamed": WrittenAnswer(event("one"), stream_end(7, 5)),
}


class OneExchangeEach:
    """An app whose every request is an exchange of the stage."""

    def __init__(self, stage: ExchangeStage, *, streamed: bool) -> None:
        self._stage, self._streamed = stage, streamed

    async def answer(self, client: Client, *_: object) -> None:
        self._stage.client = client
        await self._stage.run(stream=self._streamed)
        self._stage.client = None


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ANSWERS)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(tmp_path: Path, kind: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = OneExchangeEach(ExchangeStage(tmp_path, ANSWERS[kind]), streamed=kind == "streamed")
    http = served_by(Connections(ConnectionCap(4, LocalCount()), TenantCaps(4, LocalBoard()), Times()))
    options = {"interface": "asgi3", "lifespan": "off", "log_config": None, "proxy_headers": False}
    server = QuietServer(uvicorn.Config(app, http=http, **options))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        with no_collector():
            before = left()  # of other tests
            async with raw_connection(listener.getsockname()[1]) as (reader, writer):
                for _ in range(5):
                    writer.write(raw_request(b"{}"))
                    await reader.readuntil(b"{}" if kind == "whole" else b"0\r\n\r\n")
                await eventually(lambda: left() <= before, within_s=5)
    finally:
        server.should_exit = True
        await serving
        listener.close()


def left() -> int:
    # Not `isinstance`, which asks the objects themselves: some libraries have ones that warn of that.
    return sum(type(one) in (Exchange, Delivery, Request) for one in gc.get_objects())
