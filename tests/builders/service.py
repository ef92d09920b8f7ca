"""A Service on loopback: connections to a port go to endpoints in turn, and stay with theirs, as kube-proxy does."""

import asyncio
import contextlib

from tests.builders.loopback_server import LoopbackServer


class Service:
    """`endpoints`: ports that new connections go to; those that are open stay where they are."""

    def __init__(self) -> None:
        self.endpoints: list[int] = []
        self.port = 0
        self._turn = 0
        self._server = LoopbackServer(self._forward)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Service":
        self.port = await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        port = self.endpoints[self._turn % len(self.endpoints)]
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            for one in (writer, inner_writer):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
