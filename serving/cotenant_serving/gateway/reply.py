"""The answer to one client: begun at most once, ended exactly once, whatever goes wrong in between."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from cotenant_serving.gateway.errors import body_for
from cotenant_serving.openai_api import RequestError, error_event

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE_BYTES = 64 << 10
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Reply:
    """`status` is what the client got (0 before the start). Sends to a client that is gone do nothing (ASGI)."""

    def __init__(
        self, send: Send, request_id: str, client_request_id: bytes | None = None, *, path: str = "/v1"
    ) -> None:
        """`path` decides about the shape of errors."""
        self._send = send
        self._path = path
        self.request_id = request_id
        self.status = 0
        self.finished = False
        self.headers: dict[str, str] = {"x-request-id": request_id}
        """Added to whatever answer begins."""
        if client_request_id is not None:
            self.headers["x-client-request-id"] = client_request_id.decode("ascii")

    @property
    def started(self) -> bool:
        return self.status != 0

    async def whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """A complete answer. A HEAD never gets here."""
        await self._start(status, {**headers, "content-length": str(len(body))})
        # The server keeps what a client does not take, and waits only before the next piece.
        for at in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
            await self._body(body[at : at + PIECE_BYTES], more=True)
        await self._body(body[_last_piece(len(body)) :], more=False)

    async def start_stream(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        """Does nothing when waiting comments have begun the stream already."""
        if not self.started:
            await self._start(200, {"content-type": content_type, "cache-control": "no-cache"})

    async def write(self, chunk: bytes) -> None:
        """Waits while the client is slow."""
        await self._body(chunk, more=True)

    async def finish(self) -> None:
        await self._body(b"", more=False)

    async def fail(self, problem: RequestError, *, linger: Callable[[], Awaitable[None]] | None = None) -> None:
        """The error as the whole answer, or as the last event of a stream; no `[DONE]` follows.

        `linger` runs after the last byte and before the connection closes.
        """
        if self.finished:
            return
        if self.started:
            await self.write(error_event(problem.message, type_=problem.type, code=problem.code))
            await self.finish()
            return
        body = body_for(problem, self._path)
        headers = {**problem.headers, "content-type": "application/json", "content-length": str(len(body))}
        await self._start(problem.status, headers)
        await self._body(body, more=linger is not None)
        if linger is not None:
            await linger()
            await self.finish()

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.started, "an answer begins once"
        self.status = status
        pairs = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in {**self.headers, **headers}.items()
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _body(self, chunk: bytes, *, more: bool) -> None:
        self.finished = not more
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


def _last_piece(size: int) -> int:
    """Where it begins."""
    return max(0, (size - 1) // PIECE_BYTES * PIECE_BYTES)


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """`send` that adds headers to the answer."""
    added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def echoed_request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The client's own request id when it is harmless to repeat; it is never used for anything else."""
    for name, value in headers:
        if name == b"x-request-id":
            return value if _CLIENT_ID.fullmatch(value) else None
    return None
