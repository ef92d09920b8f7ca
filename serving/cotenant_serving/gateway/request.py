"""One request of a connection and its answer: what `client.Client` promises, straight on the transport."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from cotenant_serving.gateway.client import Callback, ClientGoneError
from cotenant_serving.gateway.errors import body_for, error
from cotenant_serving.gateway.framing import STATUS_LINES, Head
from cotenant_serving.gateway.request_ids import new_request_id
from cotenant_serving.openai_api import RequestError

if TYPE_CHECKING:
    from cotenant_serving.gateway.protocol import Connection

log = logging.getLogger("cotenant.gateway")

HELD_BYTES = 64 << 10
"""Of a body that nobody has taken: reading pauses beyond."""
JOINED_BYTES = 64 << 10
"""A piece up to so long is copied, to go out with its framing in one write; a longer one is written by itself."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOBODY = frozenset({204, 304})
_RESET = struct.pack("ii", 1, 0)


class Request:
    """The connection calls `arrived`, `complete`, `lost`, `slow` and `caught_up`; the app what `Client` names."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_head",
        "_left",
        "_lost",
        "_news",
        "_parts",
        "_pause",
        "_resume",
        "_silent",
        "_transport",
        "_waits_for_100",
        "begun",
        "gone",
        "headers",
        "held_bytes",
        "keep_alive",
        "like",
        "method",
        "path",
        "start",
        "taken_in",
    )

    def __init__(
        self, connection: "Connection", transport: asyncio.Transport, head: Head, body: bytes | None = None
    ) -> None:
        """`body`: the whole of it, where that came with the head."""
        self.headers: Sequence[tuple[bytes, bytes]]
        self.start = start = head.start
        self.headers, self.keep_alive, self._waits_for_100 = head.headers, head.keep_alive, head.waits_for_100
        self.method, self.path = start.method, start.path
        self.like: object = head.like
        self.gone = self.begun = False
        self.taken_in = body is not None
        """The end of the body is here."""
        self.held_bytes = len(body) if body else 0
        self._connection = connection
        self._transport: asyncio.Transport | None = transport
        """None once nothing more can be sent: the answer has ended, or nobody is there."""
        self._parts = [body] if body else None
        self._news: asyncio.Future[None] | None = None
        """Somebody waits for a part of the body."""
        self._lost: Callback | None = None
        self._pause: Callback | None = None
        self._resume: Callback | None = None
        self._head = b""
        """Of the answer, until it goes out with the first piece."""
        self._chunked = self._silent = False
        """`_silent`: the answer has no body, whatever it says (HEAD)."""
        self._left: int | None = 0
        """Bytes that the answer's length promises, not written yet; None: it ends with the connection."""

    # What the app reads.

    def take_body(self) -> bytes | None:
        if not self.taken_in:
            return None
        parts = self._parts
        if parts is None:
            return b""
        self._parts, self.held_bytes = None, 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def small_body(self, most: int) -> bytes | None:
        parts = self._parts
        return parts[0] if parts and self.taken_in and len(parts) == 1 and len(parts[0]) <= most else None

    async def body_part(self) -> bytes:
        while not self._parts:
            if self.gone:
                raise ClientGoneError
            if self.taken_in:
                return b""
            self._news = asyncio.get_running_loop().create_future()
            if self._waits_for_100 and not self.begun and self._transport is not None:
                self._waits_for_100 = False
                self._transport.write(_CONTINUE)
            self._connection.read_on()
            await self._news
        part = b"".join(self._parts)
        self._parts, self.held_bytes = None, 0
        return part

    @property
    def known(self) -> Any:
        return self._connection.known

    @known.setter
    def known(self, kept: Any) -> None:
        self._connection.known = kept

    def belongs_to(self, tenant: str) -> bool:
        connection = self._connection
        return tenant == connection.tenant or connection.belongs_to(tenant)

    def watch(self, gone: Callback, pause: Callback, resume: Callback) -> None:
        if self.gone:
            gone()
            return
        self._lost, self._pause, self._resume = gone, pause, resume
        if self._connection.client_is_slow:
            pause()

    # What the app writes.

    def begin(self, status: int, fields: bytes, length: int | None = None) -> None:
        assert not self.begun, "an answer begins once"
        self.begun = True
        self._silent = self.method == "HEAD" or status in _NOBODY
        connection = self._connection
        if not self.taken_in or connection.ending:
            self.keep_alive = False
        if status in _NOBODY:
            framing = b""
        elif length is not None:
            self._left = 0 if self._silent else length
            framing = b"content-length: %d\r\n" % length
        elif self.start.old:
            self._left = None
            framing = b""
        else:
            self._chunked = not self._silent
            framing = b"transfer-encoding: chunked\r\n"
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self._head = b"".join((STATUS_LINES[status], connection.shared.date, fields, framing, end))

    def write(self, chunk: bytes) -> None:
        if self._transport is not None:
            self._send(chunk, b"")

    def end(self, last: bytes = b"") -> None:
        if self._transport is None:
            return
        assert self.begun, "an answer begins before it ends"
        if not self._silent and not self._chunked and self._left not in (None, len(last)):
            log.error("an answer to %s %s has not the length that it says", self.method, self.path[:80])
            self.abort()
            return
        self._send(last, b"0\r\n\r\n" if self._chunked else b"")
        if self._transport is not None:
            self._transport = self._lost = self._pause = self._resume = None  # no cycle is left behind
            self._connection.answered(self)

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        """What most answers are: everything at once, in one write."""
        connection, transport = self._connection, self._transport
        ends = not self.keep_alive or not self.taken_in or connection.ending
        if ends or transport is None or self.method == "HEAD" or status in _NOBODY or len(body) > JOINED_BYTES:
            self.begin(status, fields, len(body))
            self.end(body)
            return
        assert not self.begun, "an answer begins once"
        self.begun = True
        try:
            transport.write(
                b"%b%b%bcontent-length: %d\r\n\r\n%b"
                % (STATUS_LINES[status], connection.shared.date, fields, len(body), body)
            )
        except RuntimeError:  # as in `_write`
            self._transport = None
            return
        self._transport = self._lost = self._pause = self._resume = None
        connection.answered(self)

    def fail(self, problem: RequestError) -> None:
        """Answers with an error in the shape of the path's API."""
        fields = b"content-type: application/json\r\nx-request-id: %b\r\n" % new_request_id().encode()
        self.whole(problem.status, fields, body_for(problem, self.path))

    def carry_on(self, work: Coroutine[Any, Any, None]) -> None:
        self._connection.run(work, self)

    def abort(self) -> None:
        if self._transport is None:
            return
        transport = self._transport
        self._transport = self._lost = self._pause = self._resume = None
        if self.start.old:
            # The end of the connection would be the end of the answer: it has to be a reset.
            wire = transport.get_extra_info("socket")
            with contextlib.suppress(OSError, ValueError):  # it was reset a moment ago
                if wire is not None:
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    async def drained(self) -> None:
        connection = self._connection
        while connection.client_is_slow and not self.gone:
            waiting = asyncio.get_running_loop().create_future()
            connection.waiting += (waiting,)
            await waiting

    def _send(self, chunk: bytes, end: bytes) -> None:
        assert self._transport is not None
        head, self._head = self._head, b""
        if self._silent:
            chunk = b""
        elif self._chunked and chunk:
            if len(chunk) <= JOINED_BYTES:
                chunk = b"%b%x\r\n%b\r\n%b" % (head, len(chunk), chunk, end)
                self._write(chunk)
                return
            head, end = b"%b%x\r\n" % (head, len(chunk)), b"\r\n" + end
        elif self._left is not None:
            self._left -= len(chunk)
        if len(chunk) <= JOINED_BYTES:
            chunk, head, end = head + chunk + end, b"", b""
        self._write(head, chunk, end)

    def _write(self, *pieces: bytes) -> None:
        assert self._transport is not None
        try:
            for piece in pieces:
                if piece:
                    self._transport.write(piece)
        except RuntimeError:  # uvloop's, of a connection that was reset a moment ago: `lost` is to come
            self._transport = None

    # What the connection says.

    def left(self, problem: BaseException | None) -> None:
        """The app works on it no more; `problem`: what it raised."""
        if problem is not None and not isinstance(problem, asyncio.CancelledError):
            log.error("a request to %s failed in the gateway", self.path[:80], exc_info=problem)
        if self._transport is None:
            return
        if self.begun:
            self.abort()
        else:
            self.fail(error("internal_error"))

    def arrived(self, part: bytes) -> None:
        if self._parts is None:
            self._parts = [part]
        else:
            self._parts.append(part)
        self.held_bytes += len(part)
        if self._news is not None:
            self._wake()

    def complete(self) -> None:
        self.taken_in = True
        if self._news is not None:
            self._wake()

    def too_late(self) -> None:
        """The body has taken too long."""
        if self._news is not None and not self._news.done():
            self._news.set_exception(TimeoutError("the body did not arrive in time"))
        self._news = None

    @property
    def open(self) -> bool:
        """The answer has not ended, and somebody is there for it."""
        return self._transport is not None

    @property
    def awaited(self) -> bool:
        """The app waits for more of the body."""
        return self._news is not None

    def lost(self) -> None:
        self.gone, self._transport = True, None
        if self._news is not None:
            self._wake()
        self._connection.wake()
        lost = self._lost
        self._lost = self._pause = self._resume = None
        if lost is not None:
            lost()

    def slow(self) -> None:
        if self._pause is not None:
            self._pause()

    def caught_up(self) -> None:
        if self._resume is not None:
            self._resume()

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
