"""One connection to an engine, and the answer that is coming on it.

The transport calls in, httptools parses, and what was parsed in one read is handed on in that very call. A connection
carries one request at a time; each request has a `LeanAnswer` of its own, so that who still holds an old answer
cannot touch the next one.
"""

import asyncio
from functools import lru_cache
from typing import Protocol

import httptools

from cotenant_serving.gateway.upstream import MAX_HEAD_BYTES, READ_BUFFER_BYTES, EngineLostError
from cotenant_serving.gateway.upstream_answer import FULL, SLOW, LeanAnswer, refuse_more

JOINED_BYTES = 32 << 10
"""Up to here a body is copied behind its head: one buffer is written with less ado than two."""
PIECE_BYTES = 128 << 10
"""Of a large request body, between two turns of the event loop."""
MAX_IDLE = 256
"""Connections to one engine that wait for a request, at most."""


class Keeper(Protocol):
    """Who has the connections."""

    def opened(self, connection: "Connection") -> None: ...
    def closed(self, connection: "Connection") -> None: ...
    def leaves(self, answer: LeanAnswer) -> None:
        """It is not wanted any more, and may be at its end but for the end's own bytes."""


class Connection(asyncio.Protocol):
    """Times are the event loop's, seconds. Not reused after anything that was not understood."""

    __slots__ = (
        "_answer", "_head_bytes", "_holds", "_interim", "_keeper", "_keeps", "_loop", "_parser", "_pool",
        "_rest", "_transport", "_until_close", "_without_body", "_writable", "idle_since",
    )  # fmt: skip

    def __init__(self, keeper: Keeper, pool: "list[Connection]", loop: asyncio.AbstractEventLoop) -> None:
        """`pool`: where it waits for its next request."""
        self._keeper, self._pool, self._loop = keeper, pool, loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: LeanAnswer | None = None
        self._head_bytes = 0
        self._interim = False
        """A 1xx answer is being read."""
        self._keeps = True
        """It may carry another request after this one."""
        self._until_close = False
        """The body of the answer ends where the connection does."""
        self._without_body = False
        """The answer to HEAD."""
        self._rest: memoryview | None = None
        """What is still to be sent of a large body."""
        self._writable = True
        self._holds = 0
        self.idle_since = 0.0

    # What its owner does.

    @property
    def idle(self) -> bool:
        return self._answer is None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, head: bytes, body: bytes, *, pieces: bool, without_body: bool) -> LeanAnswer:
        """Sends a request. `pieces`: the body is large."""
        answer = self._answer = LeanAnswer(self)
        self._head_bytes = 0
        self._without_body = without_body
        transport = self._transport
        assert transport is not None
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        elif pieces:
            transport.write(head)
            self._rest = memoryview(body)
            self._write_rest()
        else:
            transport.writelines((head, body))
        return answer

    def carry(self, answer: LeanAnswer, message: bytes) -> None:
        """Sends a request as it stands; what comes is `answer`'s."""
        self._answer = answer
        self._head_bytes = 0
        self._without_body = False
        assert self._transport is not None
        self._transport.write(message)

    def rest(self) -> None:
        """It was not needed."""
        self._pool.append(self)

    def leave(self, answer: LeanAnswer) -> None:
        """Waits a moment for the end of an answer of which all was taken that matters; closes otherwise."""
        if answer.status and self._keeps and not answer.pieces and self._rest is None:
            answer.put = refuse_more
            self.read_on(FULL | SLOW)
            self._keeper.leaves(answer)
        else:
            self.drop(answer)

    def drop(self, answer: LeanAnswer) -> None:
        """Closes the connection if it still is this answer's."""
        if self._answer is answer:
            self.abort()

    def abort(self) -> None:
        """Whoever waits for its answer is told."""
        self._answer, answer = None, self._answer
        self._rest = None
        if self._transport is not None:
            self._transport.abort()
        if answer is not None:
            answer.connection = None
            self._fail(answer, "its connection was closed here")
            answer.tell()

    def read_not(self, why: int) -> None:
        if not self._holds and self._transport is not None:
            self._transport.pause_reading()
        self._holds |= why

    def read_on(self, why: int) -> None:
        if self._holds:
            self._holds &= ~why
            if not self._holds and self._transport is not None:
                self._transport.resume_reading()

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.idle_since = self._loop.time()
        self._keeper.opened(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()  # nobody asked for it
            return
        if not answer.status and not self._head_bytes and not self._without_body and answer.take_plain(data):
            self._end(answer)  # between two answers, the parser need not know of this one
            return
        size = answer.size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(answer, "what it sent is not an HTTP answer")
        head_came = False
        if not answer.given:
            head_came = self._look_at_head(answer, len(data))
        elif answer.size == size:
            self._look_at_framing(answer, len(data))
        else:
            self._head_bytes = 0
        if answer.pieces:
            if answer.put is not None:
                answer.hand_on()
            else:
                self._look_at_size(answer)
        # Whoever waits goes on in these calls: all must be said and done before.
        if answer.complete or answer.problem is not None:
            self._end(answer)
        elif head_came:
            answer.give()
        elif answer.put is refuse_more:
            answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.closed(self)
        if self in self._pool:
            self._pool.remove(self)
        self._transport = None
        del self._parser  # it refers to this object
        answer = self._answer
        if answer is not None:
            if exc is None and self._until_close:
                answer.complete = True
            else:
                self._fail(answer, type(exc).__name__ if exc is not None else "it closed the connection")
            self._end(answer)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._write_rest()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.complete:
            self._keeps = False  # bytes beyond the end of the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer is not None and not answer.status:  # trailers say nothing that is wanted here
            answer.headers[_lower(name)] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        answer = self._answer
        if answer is None or answer.status:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._begin_interim(answer, status)
            return
        answer.status = status
        if not self._parser.should_keep_alive():
            self._keeps = False
            self._until_close = "content-length" not in answer.headers and "transfer-encoding" not in answer.headers
        if self._without_body or status in (204, 304):
            self._end_without_body(answer)
        elif answer.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            self._fail(answer, "its transfer encoding is not understood")

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        if answer is not None and not answer.complete:
            answer.pieces.append(body)
            answer.size += len(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif self._answer is not None:
            self._answer.complete = True

    # How it works.

    def _begin_interim(self, answer: LeanAnswer, status: int) -> None:
        if status == 101 or "content-length" in answer.headers or "transfer-encoding" in answer.headers:
            self._fail(answer, f"HTTP {status}, which was not asked for")
        self._interim = True
        answer.headers.clear()

    def _end_without_body(self, answer: LeanAnswer) -> None:
        """The parser may be waiting for a body that must not come."""
        headers = answer.headers
        if self._without_body or "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            self._keeps = False
        answer.complete = True

    def _look_at_head(self, answer: LeanAnswer, size: int) -> bool:
        """After a read in which the head was still to come. Whether it is here."""
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            names_and_values = sum(len(name) + len(value) for name, value in answer.headers.items())
            if not answer.status or names_and_values > MAX_HEAD_BYTES:
                self._fail(answer, f"a head of more than {MAX_HEAD_BYTES} bytes")
        if not answer.status:
            return False
        self._head_bytes = 0
        return True

    def _look_at_framing(self, answer: LeanAnswer, size: int) -> None:
        """After a read that brought nothing of the body: chunk sizes, or trailers, which the parser keeps."""
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail(answer, f"more than {MAX_HEAD_BYTES} bytes without a piece of its body")

    def _look_at_size(self, answer: LeanAnswer) -> None:
        """After a read that nobody took: somebody collects, or nobody is there yet."""
        if not answer.reading:
            if answer.size > READ_BUFFER_BYTES:
                self.read_not(FULL)
        elif answer.size > answer.reading:
            self._fail(answer, f"an answer of more than {answer.reading} bytes")

    def _fail(self, answer: LeanAnswer, reason: str) -> None:
        self._keeps = False
        if not answer.complete and answer.problem is None:
            answer.problem = EngineLostError(reason)

    def _end(self, answer: LeanAnswer) -> None:
        """Nothing more will come of this answer: back to the others that are idle, or closed."""
        if (
            self._keeps
            and answer.problem is None
            and self._rest is None
            and self._transport is not None  # as `usable`; a call for every answer costs more
            and not self._transport.is_closing()
            and len(self._pool) < MAX_IDLE
        ):
            self._answer = answer.connection = None
            if self._holds:
                self.read_on(FULL | SLOW)
            self.idle_since = self._loop.time()
            self._pool.append(self)
            answer.tell()
        else:
            self.abort()

    def _write_rest(self) -> None:
        rest, transport = self._rest, self._transport
        if rest is None or transport is None or transport.is_closing():
            return
        transport.write(rest[:PIECE_BYTES])
        self._rest = rest[PIECE_BYTES:] if len(rest) > PIECE_BYTES else None
        if self._writable:
            self._loop.call_soon(self._write_rest)


@lru_cache(maxsize=128)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()
