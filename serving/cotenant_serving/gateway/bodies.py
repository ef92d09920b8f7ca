"""Reading the bodies of requests: bounded in size, in time, and in what they and answers hold in memory together."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cotenant_serving.contract import HEADER_JSON_LENGTH
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.reply import Receive
from cotenant_serving.openai_api import RequestError

BINARY_TIMES = 8
"""A body may be so many times longer than JSON may be when binary tensors follow the JSON: they are never parsed."""
HELD_BYTES = 512 << 20
"""What the bodies of all requests and answers of one process may hold, from the first byte to the end of the request;
those of one tenant half of it. A stream is never held whole."""
LINGER_S = 1.0
"""How long the rest of a refused body is read and thrown away, so that the client sees the answer and no reset."""
_CLOSE = {"connection": "close"}

Reserve = Callable[[int], None]


class ClientGoneError(Exception):
    """The client left before its body was complete."""


class BodyBudget:
    """Counts the bytes of bodies that are held."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._most = held_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def of(self, tenant: str) -> Iterator[Reserve]:
        """For one request: to be called with each number of bytes. Raises RequestError (503) when it is too much."""
        taken = 0

        def reserve(size: int) -> None:
            nonlocal taken
            if self._held[tenant] + size > self._most // 2 or self._held.total() + size > self._most:
                raise error(
                    "overloaded", "Too many bytes of requests and answers are held.", retry_after_s=1, headers=_CLOSE
                )
            self._held[tenant] += size
            taken += size

        try:
            yield reserve
        finally:
            self._held[tenant] -= taken
            if not self._held[tenant]:
                del self._held[tenant]


def check_headers(headers: Sequence[tuple[bytes, bytes]], max_bytes: int, max_json_bytes: int) -> None:
    """Refuses by its headers a body that would be refused anyway. Raises RequestError (413, 415)."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise error("unsupported_encoding")
        if name == b"content-length" and int(value) > max_bytes:
            raise _too_large(f"{int(value)} bytes", max_bytes)
        if name == HEADER_JSON_LENGTH.encode() and value.isdigit() and int(value[:20]) > max_json_bytes:
            raise _too_large(f"{int(value[:20])} bytes of JSON", max_json_bytes)


async def read_body(receive: Receive, max_bytes: int, timeout_s: float, reserve: Reserve) -> bytes:
    """The whole body. Raises RequestError (408, 413, 503), or ClientGoneError."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(receive, max_bytes, reserve)
    except TimeoutError:
        raise error("body_too_slow", headers=_CLOSE) from None


async def _read(receive: Receive, max_bytes: int, reserve: Reserve) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(f"more than {max_bytes} bytes", max_bytes)
        reserve(len(parts[-1]))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def discard(receive: Receive) -> None:
    """The rest of a body that is refused."""
    try:
        async with asyncio.timeout(LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass


def left_unread(problem: RequestError) -> bool:
    """Whether the error came before the end of the body, so that the connection must close."""
    return problem.headers.get("connection") == "close"


def _too_large(given: str, most: int) -> RequestError:
    return error("body_too_large", f"The body has {given}; at most {most} are read.", headers=_CLOSE)
