"""The little of ASGI that an engine's HTTP needs: reading a body whole, answering, refusing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from cotenant_serving.contract import HEADER_REFUSED
from cotenant_serving.engine.base import GenerationError
from cotenant_serving.oip_api import error_body as oip_error_body
from cotenant_serving.openai_api import RequestError, error_body
from cotenant_serving.tracing import NO_SPAN, Span

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 512 * 2**20
"""Above what any gateway lets through, so that it alone says what is too much."""
BODY_DEADLINE_S = 30.0
CLIENT_CLOSED_REQUEST = 499


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request, its body not yet read. Names of headers are lower case."""

    method: str
    path: str
    headers: Mapping[str, bytes]
    receive: Receive
    send: Send
    span: Span = NO_SPAN

    @property
    def speaks_oip(self) -> bool:
        """Whether errors go out in the Open Inference Protocol's shape, not in OpenAI's."""
        return self.path == "/v2" or self.path.startswith("/v2/")

    async def refuse(self, error: RequestError) -> None:
        body = oip_error_body(error.message) if self.speaks_oip else error.body()
        await respond(self.send, error.status, body, error.headers)

    async def fail(self, error: GenerationError, headers: Mapping[str, str]) -> None:
        """Before any byte of an answer is out."""
        self.span.failed(error.code)
        status = CLIENT_CLOSED_REQUEST if error.code == "cancelled" else 500
        body = (
            oip_error_body(error.message)
            if self.speaks_oip
            else error_body(error.message, type_="server_error", code=error.code)
        )
        await respond(self.send, status, body, headers)

    async def read_body(self) -> bytes:
        """Raises RequestError: 413 for too much, 408 for too slow, 499 for a client that left."""
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                while more:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError(CLIENT_CLOSED_REQUEST, "The client left before its body was complete.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MAX_BODY_BYTES:
                        raise RequestError(413, f"The body has more than {MAX_BODY_BYTES} bytes. Send less.")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RequestError(
                408, f"The body did not arrive within {BODY_DEADLINE_S:.0f} s. Send it again."
            ) from None
        return b"".join(parts)

    async def gone(self) -> None:
        """Returns when the client leaves. Only after the body has been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def write(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def respond(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    all_headers = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers or {})
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def refusal(status: int, why: str, message: str, headers: Mapping[str, str] | None = None) -> RequestError:
    """No work was done: another engine may take the request."""
    return RequestError(
        status,
        message,
        type_="service_unavailable",
        code=why,
        headers={HEADER_REFUSED: why} | dict(headers or {}),
    )
