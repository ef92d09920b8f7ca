"""The engine behind every side of `bench-gateway`: the reference server's answers, and what a gateway of ours asks.

`python -m benchmarks.gateway_backend` prints its port, and serves until its stdin ends. Answers are rendered once for
each different body, so that this takes little of the core that it shares with the load. Streams have a token each
4 ms, each in a write of its own, on a clock of whole milliseconds as the reference server's.

To a request that names an instance it answers as an engine of the pool: with its usage in a header, or in the comment
that ends a stream. It is also that pool's conductor: a table with this one engine, which never changes.
"""

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import Sequence
from time import monotonic_ns
from typing import cast

import httptools
import msgspec
import uvloop
from tests.builders.reference_answers import LAST_CHUNK, Asked, chunk, read_request, render_stream, render_whole
from tests.builders.reference_server import Behaviour, Clockwork

from cotenant_serving.contract import HEADER_INSTANCE, HEADER_USAGE, USAGE_COMMENT, Reason, Usage
from cotenant_serving.contract_gateway import EngineRow, ModelRow, Table

MODEL = "search/reference"
ITL_NS, SLOW_ITL_NS = 4_000_000, 1_000_000_000
SLOW_USER = "slow"
"""Streams for this `user` have an event each second: they stay open while somebody looks."""
SLOTS = 4096
"""More than any load here has requests at a time."""
SLOW = b'"user":"%s"' % SLOW_USER.encode()
DONE = b"data: [DONE]\n\n"
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def whole(asked: Asked, *, engine: bool) -> bytes:
    """A whole answer; `engine`: with the header that only our gateway gets. Pure."""
    answer = render_whole(asked, None, b"r1")
    if not engine:
        return answer
    head, end, body = answer.partition(b"\r\n\r\n")
    return b"%s\r\n%s: %s%s%s" % (head, HEADER_USAGE.encode(), usage(asked), end, body)


def pieces(asked: Asked, *, engine: bool) -> Sequence[bytes]:
    """What is written of a stream for each token; `engine`: with the comment that only our gateway gets. Pure."""
    rendered = render_stream(asked, None, b"r1")
    if not engine:
        return rendered
    ending = chunk(USAGE_COMMENT + usage(asked) + b"\n\n" + DONE) + LAST_CHUNK
    return [*rendered[:-1], rendered[-1].removesuffix(chunk(DONE) + LAST_CHUNK) + ending]


def usage(asked: Asked) -> bytes:
    return msgspec.json.encode(Usage(prompt_tokens=asked.prompt_tokens, completion_tokens=asked.tokens))


def table(port: int) -> bytes:
    engine = EngineRow(instance="i1", model=MODEL, revision="0badcafe", host="127.0.0.1", port=port, slots=SLOTS)
    model = ModelRow(model=MODEL, state="ready", reason=Reason.READY)
    return msgspec.json.encode(Table(epoch="e1", sequence=1, engines=(engine,), models=(model,)))


class Backend:
    """What the connections share."""

    def __init__(self) -> None:
        self.port = 0
        self.clockwork = Clockwork(Behaviour())
        self._rendered: dict[tuple[bytes, bool], bytes | Sequence[bytes]] = {}

    def answer(self, body: bytes, *, engine: bool) -> bytes | Sequence[bytes]:
        """The pieces of a stream, or a whole answer."""
        found = self._rendered.get((body, engine))
        if found is None:
            asked = read_request("/v1/chat/completions", body)
            found = pieces(asked, engine=engine) if asked.streamed else whole(asked, engine=engine)
            self._rendered[body, engine] = found
        return found


class Stream:
    """One stream under way. It has the form that the reference server's clockwork calls."""

    __slots__ = ("_connection", "_due_ns", "_index", "_itl_ns", "_pieces")

    def __init__(self, connection: "Connection", pieces: Sequence[bytes], itl_ns: int) -> None:
        self._connection, self._pieces, self._index, self._itl_ns = connection, pieces, 0, itl_ns
        self._due_ns = monotonic_ns()
        self.write_next()

    def write_next(self) -> None:
        if self._connection.closed:
            return
        self._connection.write(self._pieces[self._index])
        self._index += 1
        if self._index < len(self._pieces):
            self._due_ns += self._itl_ns
            self._connection.backend.clockwork.call(self, self._due_ns)  # type: ignore[arg-type]


class Connection(asyncio.Protocol):
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.closed = False
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body: list[bytes] = []
        self._engine = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._body, self._engine = b"", [], False

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() == HEADER_INSTANCE.encode():
            self._engine = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._path.partition(b"?")[0]
        if path == b"/v1/chat/completions":
            body = b"".join(self._body)
            answer = self.backend.answer(body, engine=self._engine)
            if isinstance(answer, bytes):
                self.write(answer)
            else:
                Stream(self, answer, SLOW_ITL_NS if SLOW in body else ITL_NS)
        elif path == b"/v1/table":
            self._tell_table()
        else:
            self.write(NO_CONTENT if path == b"/v1/demand" else HEALTHY)

    def _tell_table(self) -> None:
        """A gateway that knows it waits for a change that never comes."""
        if b"sequence=1" in self._path:
            asyncio.get_running_loop().call_later(20, self.write, NO_CONTENT)
            return
        body = table(self.backend.port)
        self.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._transport.write(data)


async def serve(port: int) -> None:
    backend = Backend()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(backend), "127.0.0.1", port, backlog=4096)
    backend.port = server.sockets[0].getsockname()[1]
    print(backend.port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # streams may be under way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(given.port))


if __name__ == "__main__":
    main()
