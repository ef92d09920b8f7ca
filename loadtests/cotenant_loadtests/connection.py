"""One connection to the target: writes a request, reads its answer, one after the other. The hot path of a worker.

llhttp reads the framing, strictly. Each arrival of bytes costs one look at the clock; what is checked for each of
them is one comparison, and everything unusual leaves by an exception.
"""

from __future__ import annotations

import asyncio
import errno
import os
from time import monotonic_ns
from typing import Protocol, cast

import httptools

from cotenant_loadtests.answers import MAX_ANSWER_BYTES, Answer, HangUpError, read_answer
from cotenant_loadtests.checks import Finding, short_word
from cotenant_loadtests.exchange import Exchange, Traffic
from cotenant_loadtests.record import NEVER

MAX_HEAD_BYTES = 64 << 10
"""Of a head, of a chunk's extensions, of trailers: bytes without any of the body. Proxies allow 8 to 64 kB."""
MAX_INTERIM_ANSWERS = 8
"""`100 Continue` and its kind, before an answer."""
MAX_RETRY_AFTER_S = 1e9


class Owner(Protocol):
    """Who makes connections, and is told of their ends. An exchange ends before its connection is told to be free."""

    traffic: Traffic

    def opened(self, connection: Connection) -> None: ...

    def answered(self, exchange: Exchange, finding: Finding, now_ns: int) -> None: ...

    def free(self, connection: Connection, now_ns: int) -> None:
        """It may carry the next request."""

    def closing(self, connection: Connection) -> None:
        """It takes no more requests."""

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Opened for one exchange; see `Owner` for what it does then."""

    def __init__(self, owner: Owner, first: Exchange, *, tls: bool) -> None:
        self.first: Exchange | None = first
        self._owner, self._tls = owner, tls
        self._traffic = owner.traffic
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._answer: Answer | None = None
        self._now_ns = 0
        self._quiet_bytes = 0
        """Since anything of a body came."""
        self._interim = 0
        self._status = 0
        self._most_bytes = MAX_ANSWER_BYTES
        self._complete = self._keep = self._framed = False
        self._content_type = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        if not self._tls:
            self._fd = transport.get_extra_info("socket").fileno()
        self._owner.opened(self)

    @property
    def made(self) -> bool:
        return self._transport is not None

    def send(self, exchange: Exchange) -> None:
        """One write, at once: the transport's own would wait for the end of the loop's turn."""
        assert self._transport is not None
        self._exchange, exchange.connection = exchange, self
        payload, exchange.payload = exchange.payload, b""
        exchange.bytes_out = size = len(payload)
        self._quiet_bytes = self._interim = self._status = 0
        self._complete = False
        self._answer = None
        try:
            written = os.write(self._fd, payload) if self._fd >= 0 else 0
        except BlockingIOError:
            written = 0
        except OSError as problem:
            self._end(Finding("reset", errno.errorcode.get(problem.errno or 0, "")), monotonic_ns())
            return
        if written < size:
            self._transport.write(payload[written:])
        exchange.sent_ns = monotonic_ns()
        exchange.tenant.sent += 1
        self._traffic.bytes_out += size

    def drop(self) -> None:
        """Close at once, whatever goes on; its exchange is not told."""
        self._exchange = None
        self._owner.closing(self)
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.drop()  # nobody asked
            return
        size = len(data)
        self._now_ns = monotonic_ns()
        self._quiet_bytes += size
        exchange.bytes_in += size
        self._traffic.bytes_in += size
        try:
            self._feed(data)
        except httptools.HttpParserError as problem:
            self._end(self._unusual(problem), self._now_ns)
            return
        if self._complete:
            self._finish()
        elif self._quiet_bytes > MAX_HEAD_BYTES:
            self._end(Finding("too_large", "head" if self._answer is None else "framing"), self._now_ns)
        elif exchange.bytes_in > self._most_bytes:
            self._end(Finding("too_large", "answer"), self._now_ns)

    def eof_received(self) -> None:
        self._owner.closing(self)

    def connection_lost(self, exc: Exception | None) -> None:
        now_ns = monotonic_ns()
        self._owner.closing(self)
        self._owner.lost(self)
        if self._exchange is not None:
            self._end(self._cut(exc, now_ns), now_ns)
        del self._parser, self._feed  # they know this object: a cycle

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise HangUpError(Finding("framing", "more"))
        exchange = self._exchange
        if exchange is not None and exchange.first_byte_ns == NEVER:
            exchange.first_byte_ns = self._now_ns
        self._framed = False
        self._content_type = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        read = _HEADERS.get(name.lower())
        if read is not None and self._answer is None:
            read(self, value)

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM_ANSWERS:
                raise HangUpError(Finding("framing", "interim"))
            return
        exchange = self._exchange
        assert exchange is not None
        exchange.status = status
        exchange.answer = self._answer = read_answer(exchange.planned, status, exchange.expected, self._content_type)
        self._take, self._most_bytes = self._answer.take, self._answer.most_bytes

    def on_body(self, piece: bytes) -> None:
        self._quiet_bytes = 0
        self._take(piece, self._now_ns)

    def on_message_complete(self) -> None:
        if self._status >= 200:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # Headers that matter

    def _read_content_type(self, value: bytes) -> None:
        self._content_type = value.lower()

    def _read_framed(self, _value: bytes) -> None:
        self._framed = True

    def _read_request_id(self, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.request_id = value

    def _read_retry_after(self, value: bytes) -> None:
        if self._exchange is not None and value.isdigit():  # dates are not read
            self._exchange.retry_after_s = min(float(value), MAX_RETRY_AFTER_S)

    def _read_server_timing(self, value: bytes) -> None:
        if self._exchange is not None:
            self._exchange.server_timing = value

    # Ends

    def _finish(self) -> None:
        """The answer is whole, and nothing follows it."""
        exchange, answer, now_ns = self._exchange, self._answer, self._now_ns
        assert exchange is not None
        assert answer is not None
        finding = answer.finish(now_ns)
        if not self._keep or self._unsent():
            self._end(finding, now_ns)
            return
        self._exchange = self._answer = exchange.connection = None
        self._owner.answered(exchange, finding, now_ns)
        self._owner.free(self, now_ns)

    def _unsent(self) -> bool:
        """It answered before it had read the request: what comes next would be read as the rest of that."""
        return self._transport is None or self._transport.get_write_buffer_size() > 0

    def _end(self, finding: Finding, now_ns: int) -> None:
        """Of the exchange and of the connection."""
        exchange = self._exchange
        assert exchange is not None
        exchange.connection = None
        self.drop()
        self._owner.answered(exchange, finding, now_ns)

    def _unusual(self, problem: httptools.HttpParserError) -> Finding:
        """Why the parser stopped."""
        cause = problem.__context__
        if isinstance(cause, HangUpError):
            return cause.finding
        if cause is not None and not isinstance(cause, httptools.HttpParserError):
            raise cause  # our own mistake
        return Finding("framing", "more" if self._complete else short_word(str(problem).replace(" ", "_")))

    def _cut(self, exc: Exception | None, now_ns: int) -> Finding:
        """The connection is gone with an answer under way."""
        if exc is not None:
            return Finding("reset", errno.errorcode.get(getattr(exc, "errno", 0) or 0, type(exc).__name__))
        if self._answer is not None and not self._framed:
            return self._answer.finish(now_ns)  # its end is the end of the connection
        return Finding("cut_short", "body" if self._answer is not None else "head")


_HEADERS = {
    b"content-type": Connection._read_content_type,
    b"content-length": Connection._read_framed,
    b"transfer-encoding": Connection._read_framed,
    b"x-request-id": Connection._read_request_id,
    b"retry-after": Connection._read_retry_after,
    b"server-timing": Connection._read_server_timing,
}
