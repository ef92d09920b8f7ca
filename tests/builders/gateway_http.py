"""HTTP/1.1 by hand on loopback: a fake decides about every byte and every broken connection."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.builders.loopback_server import LoopbackServer
from tests.builders.ports import free_port


@dataclass
class Seen:
    """A request as a fake got it. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Wire:
    """What a script writes with."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        await self.head(status, lines)
        await self.raw(body)

    async def head(self, status: int, headers: dict[str, str]) -> None:
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.raw(f"HTTP/1.1 {status} X\r\n{text}\r\n".encode())

    async def stream_head(self) -> None:
        await self.head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Seen, Wire], Awaitable[None]]


class HttpFake:
    """Serves HTTP on a loopback port until closed; `handle` is the subclass's."""

    def __init__(self) -> None:
        self.port = 0
        self._server = LoopbackServer(self._converse)

    async def start(self) -> None:
        self.port = await self._server.start(self.port or free_port())

    async def stop(self) -> None:
        await self._server.stop()

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def handle(self, seen: Seen, wire: Wire) -> None:
        raise NotImplementedError

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _read_request(reader)) is not None:
                watch = asyncio.create_task(_watch(reader, seen.disconnected))
                try:
                    await self.handle(seen, Wire(reader, writer))
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                if writer.transport.is_closing() or seen.disconnected.is_set():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


async def _watch(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    # A client does not pipeline here, so the reader says nothing but the end of the connection.
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.02)
    gone.set()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines if line}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Seen(method, url.path, {k: v[0] for k, v in parse_qs(url.query).items()}, headers, body)
