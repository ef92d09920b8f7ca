"""An engine of bare sockets on loopback: a test writes down every byte it says, and when it closes."""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cotenant_serving.contract_gateway import EngineRow
from tests.builders.gateway import row
from tests.builders.loopback_server import LoopbackServer

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Heard:
    """A request as it came: `head` up to and with the empty line."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def header(self, name: bytes) -> bytes | None:
        found = re.findall(rb"(?im)^%s: *([^\r]*)\r$" % re.escape(name), self.head)
        assert len(found) <= 1, f"{name!r} stands twice in {self.head!r}"
        return found[0] if found else None


@dataclass
class Talk:
    """One connection, as the engine has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed it, or was closed upon."""

    async def head(self) -> bytes:
        """Of the next request; its body is not read. Raises IncompleteReadError when the client left."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Heard:
        head = await self.head()
        heard = Heard(head, b"")
        heard.body = await self.reader.readexactly(int(heard.header(b"content-length") or 0))
        return heard

    async def say(self, *pieces: bytes) -> None:
        """Each piece in a write of its own; a client may still read several at once."""
        for piece in pieces:
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def until_left(self) -> None:
        while await self.reader.read(1 << 16):
            pass
        self.left.set()

    def close(self) -> None:
        """In peace: what was said arrives."""
        self.writer.close()

    def reset(self) -> None:
        """Not in peace: the client is told so by a reset."""
        if not self.writer.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


class RawEngine:
    """Runs `script` on every connection; closes it when the script returns."""

    def __init__(self, script: Script, host: str = "127.0.0.1") -> None:
        self.script, self.host, self.port = script, host, 0
        self.talks: list[Talk] = []
        self._server = LoopbackServer(self._run, host, limit=1 << 20)

    @property
    def row(self) -> EngineRow:
        return row("i1", host=self.host, port=self.port, slots=64)

    async def __aenter__(self) -> "RawEngine":
        self.port = await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for talk in self.talks:
            talk.reset()
        await self._server.stop()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk(reader, writer)
        self.talks.append(talk)
        try:
            await self.script(talk)
            talk.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            talk.left.set()
            talk.reset()


def saying(*pieces: bytes) -> Script:
    """The same answer to every request, for as long as the client asks."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(*pieces)

    return script


def closing_after(*pieces: bytes) -> Script:
    """One answer, however much of one it is, and the end of the connection."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(*pieces)

    return script


async def hang(talk: Talk) -> None:
    """Takes a request and says nothing."""
    await talk.request()
    await talk.until_left()
