"""A `Client` that a test writes down: the body in pieces, and everything that it is sent."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cotenant_serving.gateway.client import Callback, ClientGoneError


def _nothing() -> None: ...


class FakeClient:
    """`pieces`: what it was sent after the head. It is slow while `reads` is not set, and then gives a sign once."""

    def __init__(
        self,
        *parts: bytes,
        path: str = "/v1/chat/completions",
        headers: Sequence[tuple[bytes, bytes]] = (),
        leaves: bool = False,
        on_sent: Callable[[], None] = _nothing,
    ) -> None:
        """`parts`: of its body; then it ends or, when it `leaves`, the connection does. `on_sent`: at each piece."""
        self.method, self.path, self.headers = "POST", path, headers
        self.gone = False
        self.known = None
        self.like = None
        self.keep_alive = True
        self.status, self.fields, self.length = 0, b"", None
        self.pieces: list[bytes] = []
        self.ended = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._parts, self._leaves, self._on_sent = deque(parts), leaves, on_sent
        self._gone: Callback = _nothing

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def leave(self) -> None:
        self.gone = True
        self._gone()

    def take_body(self) -> bytes | None:
        return None

    def small_body(self, most: int) -> bytes | None:
        return None

    async def body_part(self) -> bytes:
        if self._parts:
            return self._parts.popleft()
        if self._leaves:
            raise ClientGoneError
        return b""

    def belongs_to(self, tenant: str) -> bool:
        return True

    def watch(self, gone: Callback, pause: Callback, resume: Callback) -> None:
        self._gone = gone
        if not self.reads.is_set():
            pause()

    def carry_on(self, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("it has no body in one piece, so nobody begins with it but a coroutine")

    def begin(self, status: int, fields: bytes, length: int | None = None) -> None:
        assert not self.status, "an answer begins once"
        self.status, self.fields, self.length = status, fields, length

    def write(self, chunk: bytes) -> None:
        assert self.status
        assert not self.ended
        self._on_sent()
        self.pieces.append(chunk)

    def end(self, last: bytes = b"") -> None:
        if last:
            self.write(last)
        assert self.length in (None, len(self.body))
        self.ended = True

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        self.begin(status, fields, len(body))
        self.end(body)

    def abort(self) -> None:
        self.gone = True

    async def drained(self) -> None:
        await self.reads.wait()
