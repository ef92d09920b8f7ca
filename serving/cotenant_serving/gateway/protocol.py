"""uvicorn's HTTP protocol with the guards that it leaves out: bounds on connections, headers and their time.

Without them one client holds a connection for ever by sending a header byte a minute or by never reading its answer,
fills memory with one endless header, or takes every file descriptor. The bound on the body and its time are the app's
(`asgi`), which can still answer with an error.
"""

import asyncio
import logging
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cotenant_serving.gateway.board import Count
from cotenant_serving.gateway.errors import body_for, error, speaks_oip

log = logging.getLogger("cotenant.gateway")

MAX_HEADER_BYTES = 64 << 10
HEADER_TIMEOUT_S = 10.0
REFUSAL_TIMEOUT_S = 1.0
"""A connection over the cap gets this long to ask, and to read why it is refused."""
REFUSALS_AT_ONCE = 256
"""Connections over the cap that are given that time; the next ones are closed with the answer alone."""
LOG_EVERY_S = 60.0
RETRY_AFTER_S = 1

STALL_S = 30.0
"""A client that has taken nothing of what waits for it between two looks, so far apart, is cut off."""

_ACKED_AT = 120
"""Offset of tcpi_bytes_acked in Linux's struct tcp_info."""
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class ConnectionCap:
    """How many connections the workers hold together. `refusing` are those over it that are just being told so."""

    def __init__(
        self,
        limit: int,
        held: Count,
        *,
        refusal_timeout_s: float = REFUSAL_TIMEOUT_S,
        refusals_at_once: int = REFUSALS_AT_ONCE,
    ) -> None:
        self.limit = limit
        self.held = held
        self.refusal_timeout_s = refusal_timeout_s
        self.refusals_at_once = refusals_at_once
        self.answer = _refusal(limit, "/v1")
        self._oip_answer = _refusal(limit, "/v2")
        self.refusing: set[RefusedConnection] = set()
        self._logged_at: float | None = None

    def answer_to(self, start: bytes) -> bytes:
        """`start`: the first bytes of the request; its path decides about the shape."""
        line = start.partition(b"\r\n")[0].split(b" ")
        path = line[1].partition(b"?")[0].decode("latin-1") if len(line) > 1 else ""
        return self._oip_answer if speaks_oip(path) else self.answer

    def log_refusal(self, now_s: float) -> None:
        if self._logged_at is None or now_s - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now_s
            log.warning("all %d connections are taken, more are refused; see --max-connections", self.limit)


class RefusedConnection(asyncio.Protocol):
    """Answers whatever comes first with 503 and closes. It reads on meanwhile: a reset would lose the answer."""

    def __init__(self, cap: ConnectionCap, loop: asyncio.AbstractEventLoop) -> None:
        self._cap = cap
        self._loop = loop
        self._answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._cap.log_refusal(self._loop.time())
        if len(self._cap.refusing) >= self._cap.refusals_at_once:
            transport.write(self._cap.answer)
            transport.close()
            return
        self._cap.refusing.add(self)
        self._timer = self._loop.call_later(self._cap.refusal_timeout_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._answered and not self._transport.is_closing():
            self._answered = True
            self._transport.write(self._cap.answer_to(data))
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._cap.refusing:
            self._cap.refusing.remove(self)
            self._timer.cancel()


class StallWatch:
    """Whether a client has taken nothing since the last look. Pure."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None

    def stalled(self, waiting: int, taken: int) -> bool:
        """`waiting`: bytes for the client that are still here. `taken`: by it, since the connection began."""
        before, self._seen = self._seen, (waiting, taken) if waiting else None
        return before is not None and before == self._seen


def capped(connections: ConnectionCap) -> type["GuardedProtocol"]:
    """The protocol class of a server that holds no more connections, idle ones included."""

    class CappedProtocol(GuardedProtocol):
        cap = connections

    return CappedProtocol


def _refusal(limit: int, path: str) -> bytes:
    body = body_for(error("overloaded", f"The gateway holds {limit} connections, which is its cap."), path)
    return (
        f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n\r\n"
    ).encode() + body


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections whose request line and headers are too long or too slow, and those over the cap."""

    cap: ConnectionCap | None = None
    stall_s = STALL_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_bytes = 0
        self._in_headers = True
        self._header_timer: asyncio.TimerHandle | None = None
        self._counted = False
        """It is one of the connections that the cap bounds."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._watch = StallWatch()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.cap is not None and not self.cap.held.take(self.cap.limit):
            # Never becomes one of uvicorn's connections: it counts, parses and drains nothing of it.
            refused = RefusedConnection(self.cap, self.loop)
            transport.set_protocol(refused)
            refused.connection_made(transport)
            return
        self._counted = self.cap is not None
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._too_slow)
        self._look_timer = self.loop.call_later(self.stall_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._counted and self.cap is not None:
            self._counted = False
            self.cap.held.add(-1)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
            started_before = self._in_headers
            super().data_received(data)
            if started_before and self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._too_slow)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        super().on_headers_complete()

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _look(self) -> None:
        """Also at connections that are closing: those end only when everything is sent."""
        if self._watch.stalled(self.transport.get_write_buffer_size(), _taken(self.transport)):
            self.transport.abort()
            return
        self._look_timer = self.loop.call_later(self.stall_s, self._look)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def _taken(transport: asyncio.BaseTransport) -> int:
    """Bytes that the other side has acknowledged since the connection began; 0 where the kernel does not tell."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return 0
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
    except OSError:
        return 0
    return int(struct.unpack_from("=Q", told, _ACKED_AT)[0]) if len(told) >= _ACKED_AT + 8 else 0
