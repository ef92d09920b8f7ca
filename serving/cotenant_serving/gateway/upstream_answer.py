"""An answer that is coming on a connection of the lean client: who takes it, what came and was not taken yet."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from cotenant_serving.gateway.eager import Signal
from cotenant_serving.gateway.upstream import MAX_ANSWER_BYTES, MAX_HEAD_BYTES, EngineLostError

if TYPE_CHECKING:
    from cotenant_serving.gateway.upstream_connection import Connection

FULL, SLOW = 1, 2
"""Why a connection is not read: nobody takes what came, or the client is slow."""

Put = Callable[[bytes], bool]

_BEGIN = b"HTTP/1.1 200 OK\r\n"
_LINE = re.compile(rb"([a-z0-9\-]+): ([!-~](?:[ -~]*[!-~])?)")
_FRAMING = frozenset(("connection", "proxy-connection", "transfer-encoding", "upgrade"))
"""Headers that say more about where an answer ends, or its connection, than its length does."""
_NOT_PLAIN = ("", "")
_LINES: dict[bytes, tuple[str, str]] = {}
"""Lines of plain heads that were read before: engines repeat theirs."""
_MAX_LINES = 4096
_MAX_LINE_BYTES = 256


def _learn(line: bytes) -> tuple[str, str]:
    """Name and value; `_NOT_PLAIN` for what others might read differently, or what changes the rest."""
    found = _LINE.fullmatch(line)
    field = (found[1].decode(), found[2].decode()) if found else _NOT_PLAIN
    if field[0] in _FRAMING:
        field = _NOT_PLAIN
    if len(line) <= _MAX_LINE_BYTES:
        if len(_LINES) >= _MAX_LINES:
            _LINES.clear()
        _LINES[line] = field
    return field


class LeanAnswer(Signal):
    """`Answer` on a connection, from the moment its request is sent. `status` is 0 until the head is here.

    As a signal it is given when the head is here, or will not come.
    """

    __slots__ = (
        "complete",
        "connection",
        "headers",
        "pieces",
        "problem",
        "put",
        "reading",
        "size",
        "status",
        "waiter",
    )

    def __init__(self, connection: "Connection | None") -> None:
        self.given, self._work, self._future = False, None, None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection: Connection | None = connection
        """None as soon as nothing more of it can come."""
        self.complete = False
        self.problem: Exception | None = None
        self.pieces: list[bytes] = []
        """What came and was not taken yet, `size` bytes."""
        self.size = 0
        self.reading = 0
        """Bytes that whoever reads wants at most; 0 while nobody does."""
        self.put: Put | None = None
        self.waiter: Signal | None = None

    def take_plain(self, data: bytes) -> bool:
        """Whether `data` is all of a plain answer: one that any reader of HTTP understands as this one does.

        Most answers are, and come in one read; a parser that calls back for each header costs three times as much.
        """
        end = data.find(b"\r\n\r\n")
        if not len(_BEGIN) <= end <= MAX_HEAD_BYTES - 4 or not data.startswith(_BEGIN):
            return False
        lines = data[len(_BEGIN) : end].split(b"\r\n")
        known = _LINES.get
        headers = dict([known(line) or _learn(line) for line in lines])
        size = len(data) - end - 4
        if len(headers) != len(lines) or "" in headers or headers.get("content-length") != str(size):
            return False
        self.status, self.headers, self.size, self.complete = 200, headers, size, True
        if size:
            self.pieces.append(data[end + 4 :])
        return True

    async def head(self) -> None:
        """Returns when the head is here. Raises EngineLostError."""
        try:
            await self
        except BaseException:
            self.drop()
            raise
        if not self.status:
            raise self.problem or EngineLostError("no answer")

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        if self.connection is not None and self.size <= limit:
            self.reading = limit
            self.connection.read_on(FULL)
            await self._end()
        if self.size > limit:
            self.drop()
            raise EngineLostError(f"an answer of more than {limit} bytes")
        if self.problem is not None:
            raise self.problem
        return self.body()

    def body(self) -> bytes:
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def relay(self, put: Put) -> None:
        self.put = put
        if self.pieces:
            self.hand_on()
            if self.problem is not None:
                self.drop()
        connection = self.connection
        if connection is not None and self.put is put:
            connection.read_on(FULL)
            await self._end()
        if self.problem is not None:
            raise self.problem

    def hand_on(self) -> None:
        """Gives `put` what came. Whatever it raises is the answer's problem, unless it had one."""
        pieces, put = self.pieces, self.put
        assert put is not None
        piece = self.body()
        pieces.clear()
        self.size = 0
        try:
            if not put(piece):
                self.put = refuse_more
        except Exception as problem:  # raised again where `relay` waits
            self.problem = self.problem or problem

    def tell(self) -> None:
        """Nothing more will come: whoever waits goes on."""
        self.give()
        self.wake()

    def wake(self) -> None:
        if self.waiter is not None:
            self.waiter.give()

    async def _end(self) -> None:
        """Returns when nothing more will come, or is wanted."""
        self.waiter = Signal()
        try:
            await self.waiter
        except BaseException:
            self.drop()
            raise

    def pause(self) -> None:
        if self.connection is not None:
            self.connection.read_not(SLOW)

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.read_on(SLOW)

    async def close(self) -> None:
        if self.connection is not None:
            self.connection.leave(self)

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.drop(self)


def refuse_more(_: bytes) -> bool:
    """What becomes of the pieces of an answer that was left."""
    raise EngineLostError("more came of an answer that was left")
