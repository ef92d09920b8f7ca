"""A server with exactly known behaviour: the truth that load tests are held to, and the benchmark's target.

`python -m tests.builders.reference_server --port 0 --behaviour '{"ttft_ms": 20}'` prints its port and serves until
its stdin ends. Timers of all streams are shared, bytes rendered ahead, each chunk is one write.
"""

import argparse
import asyncio
import heapq
import os
import resource
import socket
import ssl
import struct
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TextIO, cast

import httptools
import msgspec
import uvloop

from cotenant_loadtests.alarm import make_alarm
from tests.builders.reference_answers import (
    Asked,
    read_request,
    render_about,
    render_error,
    render_stream,
    render_whole,
)

GRID_NS = 1_000_000
"""Answers are due at whole milliseconds: streams that are due together share a timer."""
KEPT_ANSWERS = 512
NS_PER_MS = 1_000_000


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    ttft_ms: float = 0.0
    """From a request's last byte to its first token, or to a whole answer."""
    itl_ms: float = 0.0
    """From token to token; 0: all at once."""
    service_ms: float = 0.0
    """One after the other: each request is worked on for so long, alone, before its `ttft_ms` begins."""
    faults: tuple[tuple[int, str], ...] = ()
    """(k, kind): every k-th request has this fault; the first that fits counts."""
    stall_at_s: float = -1.0
    """So long after the first request all answers freeze; -1: never."""
    stall_s: float = 0.0

    def fault(self, number: int) -> str | None:
        """Of the number-th request, from 1."""
        return next((kind for every, kind in self.faults if number % every == 0), None)


class Logged(msgspec.Struct, kw_only=True):
    """What really happened to one request; times are CLOCK_MONOTONIC."""

    request_id: str
    number: int
    fault: str | None
    asked_ns: int
    sent_ns: list[int] = []
    """When each token's bytes were handed to the kernel."""
    cancelled: bool = False


class Clockwork:
    """Calls back at times on the grid; everything due at one time wakes the loop once."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._slots: dict[int, list[Answer]] = {}
        self._times: list[int] = []
        self._alarm = make_alarm(asyncio.get_running_loop(), self._ring)
        self._stall_ns = (0, 0)
        self._free_ns = 0

    def first_token_ns(self, now_ns: int) -> int:
        """When the answer to a request that came now may begin."""
        if not self._stall_ns[1] and self._behaviour.stall_at_s >= 0:
            begin_ns = now_ns + round(self._behaviour.stall_at_s * 1e9)
            self._stall_ns = (begin_ns, begin_ns + round(self._behaviour.stall_s * 1e9))
        if self._behaviour.service_ms:
            self._free_ns = max(now_ns, self._free_ns) + round(self._behaviour.service_ms * NS_PER_MS)
            now_ns = self._free_ns
        return now_ns + round(self._behaviour.ttft_ms * NS_PER_MS)

    def call(self, answer: "Answer", at_ns: int) -> None:
        frozen_from_ns, frozen_to_ns = self._stall_ns
        if frozen_from_ns <= at_ns < frozen_to_ns:
            at_ns = frozen_to_ns
        slot = -(-at_ns // GRID_NS)
        if (waiting := self._slots.get(slot)) is not None:
            waiting.append(answer)
            return
        self._slots[slot] = [answer]
        heapq.heappush(self._times, slot)
        if self._times[0] == slot:
            self._alarm.set(slot * GRID_NS)

    def _ring(self) -> None:
        now_slot = monotonic_ns() // GRID_NS
        while self._times and self._times[0] <= now_slot:
            for answer in self._slots.pop(heapq.heappop(self._times)):
                answer.write_next()
        if self._times:
            self._alarm.set(self._times[0] * GRID_NS)


class Answer:
    """One answer under way: pieces that are written in turn."""

    __slots__ = ("_connection", "_due_ns", "_index", "_logged", "_pieces", "_server")

    def __init__(self, server: "Server", connection: "Connection", pieces: Sequence[bytes], logged: Logged) -> None:
        self._server, self._connection = server, connection
        self._pieces, self._logged, self._index = pieces, logged, 0
        self._due_ns = server.clockwork.first_token_ns(logged.asked_ns)
        server.clockwork.call(self, self._due_ns)

    def write_next(self) -> None:
        connection, pieces, index = self._connection, self._pieces, self._index
        if connection.closed:
            self._logged.cancelled = True
            self._server.log(self._logged)
            return
        if self._server.itl_ns == 0 and index < len(pieces) - 1:
            pieces = self._pieces = [*pieces[:index], b"".join(pieces[index:])]
        connection.write(pieces[index])
        if self._server.logs:
            self._logged.sent_ns.append(monotonic_ns())
        self._index = index = index + 1
        if index < len(pieces):
            self._due_ns += self._server.itl_ns
            self._server.clockwork.call(self, self._due_ns)
        else:
            self._server.log(self._logged)
            connection.answered(self._logged.fault)


class Connection(asyncio.Protocol):
    def __init__(self, server: "Server", *, tls: bool) -> None:
        self._server, self._tls = server, tls
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body: list[bytes] = []
        self._transport: asyncio.Transport
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._fd = -1 if self._tls else transport.get_extra_info("socket").fileno()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, body = self._path.decode(), b"".join(self._body)
        self._path, self._body = b"", []
        if self._parser.get_method() == b"GET":
            self.write(render_about())
        else:
            self._server.answer(self, path, body)

    def write(self, data: bytes) -> None:
        if self._tls or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._transport.abort()
            return
        if written < len(data):
            self._transport.write(data[written:])

    def answered(self, fault: str | None) -> None:
        if fault == "reset":
            raw = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, raw)
            self._transport.abort()
        elif fault == "cut":
            self._transport.close()


class Server:
    """Counts requests, decides their faults, keeps the log."""

    def __init__(self, behaviour: Behaviour, log: TextIO | None = None) -> None:
        self._behaviour, self._log = behaviour, log
        self._number = 0
        self._rendered: OrderedDict[tuple[str, bytes, str | None], tuple[Asked, Sequence[bytes]]] = OrderedDict()
        self.clockwork = Clockwork(behaviour)
        self.itl_ns = round(behaviour.itl_ms * NS_PER_MS)
        self.logs = log is not None

    def answer(self, connection: Connection, path: str, body: bytes) -> None:
        asked_ns = monotonic_ns()
        self._number += 1
        fault = self._behaviour.fault(self._number)
        request_id = b"r%08d" % self._number
        pieces = self._pieces(path, body, fault, request_id)
        logged = Logged(
            request_id=request_id.decode(), number=self._number, fault=fault, asked_ns=asked_ns, sent_ns=[]
        )
        Answer(self, connection, pieces, logged)

    def log(self, logged: Logged) -> None:
        if self._log is not None:
            self._log.write(msgspec.json.encode(logged).decode() + "\n")
            self._log.flush()

    def _pieces(self, path: str, body: bytes, fault: str | None, request_id: bytes) -> Sequence[bytes]:
        if fault is not None and (fault.isdigit() or fault == "redirect"):
            return [render_error(fault, request_id)]
        key = (path, body, fault)
        if key in self._rendered:
            pieces = self._rendered[key][1]
        else:
            asked = read_request(path, body)
            pieces = render_stream(asked, fault, _ID) if asked.streamed else [render_whole(asked, fault, _ID)]
            self._rendered[key] = asked, pieces
            if len(self._rendered) > KEPT_ANSWERS:
                self._rendered.popitem(last=False)
        return [pieces[0].replace(_ID, request_id, 1), *pieces[1:]]


_ID = b"r%08d" % 0


async def serve(server: Server, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
    def connection() -> Connection:
        return Connection(server, tls=tls is not None)

    loop = asyncio.get_running_loop()
    return await loop.create_server(connection, "127.0.0.1", port, backlog=8192, ssl=tls)


def _tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def _main(port: int, behaviour: Behaviour, log: Path | None, certificate: Path | None) -> None:
    opened = log.open("w") if log else None
    listening = await serve(Server(behaviour, opened), port, _tls(certificate) if certificate else None)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # streams may be under way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", default="{}", help="JSON of the fields of Behaviour")
    parser.add_argument("--log", type=Path, help="a JSON line for each request: when its bytes went out")
    parser.add_argument("--certificate", type=Path, help="speak TLS with this: key and certificate in one PEM file")
    options = parser.parse_args()
    behaviour = msgspec.json.decode(options.behaviour, type=Behaviour)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    uvloop.run(_main(options.port, behaviour, options.log, options.certificate))


if __name__ == "__main__":
    main()
