"""HTTP to the engines: the seam (`Upstream`), what an answer means, and the reference client on aiohttp."""

import asyncio
import enum
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import msgspec

from cotenant_serving.contract import (
    HEADER_INSTANCE,
    HEADER_MODEL,
    HEADER_REFUSED,
    HEADER_REQUEST_ID,
    EngineRow,
    Usage,
)

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 2.0
CANCEL_S = 0.8
IDLE_CONNECTION_S = 3.0
"""Far shorter than the engines' own keep-alive: a connection is not reused while its engine closes it."""
READ_BUFFER_BYTES = 64 * 1024
"""aiohttp stops reading an engine at twice this: a slow client slows the engine instead of filling memory."""
MAX_ANSWER_BYTES = 64 << 20
_LARGE_BODY_BYTES = 512 << 10
"""aiohttp writes bytes in one go; larger bodies go in pieces so that they do not hold up the event loop."""


class EngineUnreachableError(Exception):
    """No connection could be made: the engine has not seen the request."""


class EngineLostError(Exception):
    """The connection broke; what the engine did with the request is unknown."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes on to an engine of a client's request; of its headers only those that say how to read the body."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


class Answer(Protocol):
    """An engine's answer from its first byte on. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises EngineLostError when it breaks off or is longer than `limit` bytes."""

    async def relay(self, put: Callable[[bytes], bool]) -> None:
        """Gives each piece of the body to `put` as it comes; returns at its end, or when `put` says False: enough.

        The lean client calls `put` in the very callback that read the piece: `put` must not wait. Raises
        EngineLostError when the body breaks off, and whatever `put` raises.
        """

    def chunks(self) -> AsyncIterator[bytes]:
        """As `relay`, for who takes the pieces one by one."""

    def pause(self) -> None:
        """Reads no more of the engine, for a client that is slow; what is on its way still comes."""

    def resume(self) -> None: ...

    async def close(self) -> None:
        """Gives the connection back if the body was read to its end, or ends within a second; else closes it."""


class Upstream(Protocol):
    """How requests get to engines."""

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> Answer:
        """Raises EngineUnreachableError, or EngineLostError when the connection broke before the first byte."""

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        """Stops a running request; what it used, or None when the engine cannot tell. Never raises."""

    async def close(self) -> None: ...


class Meaning(enum.Enum):
    """What the first byte of an engine's answer means for the request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """4xx: the client's mistake, passed on unchanged."""
    BUSY = "busy"
    LOADING = "loading"
    DRAINING = "draining"
    MISDIRECTED = "misdirected"
    FAILED = "failed"


def meaning(status: int, refused: str) -> Meaning:
    """`refused` is the header x-cotenant-refused, empty when absent. Pure."""
    if status == 421:
        return Meaning.MISDIRECTED
    if status == 503 and refused in ("busy", "loading", "draining"):
        return Meaning(refused)
    if status == 200:
        return Meaning.ANSWERED
    # 401 and 403 of an engine are about the gateway's own token, never about the client's key.
    if 400 <= status < 500 and status not in (401, 403):
        return Meaning.REFUSED
    return Meaning.FAILED


class AiohttpUpstream:
    """The reference client."""

    def __init__(self, token: Callable[[], str]) -> None:
        """`token` gives the pool token at the time of each request. Needs a running event loop."""
        import aiohttp

        self._token = token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S, use_dns_cache=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> "AiohttpAnswer":
        import aiohttp

        body = outgoing.body
        try:
            response = await self._session.request(
                outgoing.method,
                base_url(row) + outgoing.path,
                data=(body or None) if len(body) < _LARGE_BODY_BYTES else io.BytesIO(body),
                headers={**outgoing.headers, **self._headers(row, request_id)},
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as problem:
            raise EngineUnreachableError(type(problem).__name__) from None
        except (aiohttp.ClientError, OSError) as problem:
            raise EngineLostError(type(problem).__name__) from None
        return AiohttpAnswer(response)

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        import aiohttp

        try:
            async with asyncio.timeout(CANCEL_S):
                async with self._session.delete(
                    f"{base_url(row)}/v1/requests/{request_id}", headers=self._authorization()
                ) as response:
                    return msgspec.json.decode(await response.read(), type=Usage) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return None

    async def close(self) -> None:
        await self._session.close()

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token()}"}

    def _headers(self, row: EngineRow, request_id: str) -> dict[str, str]:
        return {
            **self._authorization(),
            HEADER_REQUEST_ID: request_id,
            HEADER_INSTANCE: row.instance,
            HEADER_MODEL: row.model,
        }


class AiohttpAnswer:
    """`Answer` over one aiohttp response; an async context manager that closes it."""

    def __init__(self, response: "aiohttp.ClientResponse") -> None:
        self._response = response
        self._reads = asyncio.Event()
        self._reads.set()
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        parts, size = [], 0

        def put(chunk: bytes) -> bool:
            nonlocal size
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise EngineLostError(f"an answer of more than {limit} bytes")
            return True

        await self.relay(put)
        return b"".join(parts)

    async def relay(self, put: Callable[[bytes], bool]) -> None:
        async for chunk in self.chunks():
            if not put(chunk):
                return

    async def chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._next():
            await self._reads.wait()
            yield chunk

    async def _next(self) -> bytes:
        """Empty at the end."""
        import aiohttp

        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as problem:
            raise EngineLostError(type(problem).__name__) from None

    def pause(self) -> None:
        self._reads.clear()

    def resume(self) -> None:
        self._reads.set()

    async def close(self) -> None:
        if not self._response.content.at_eof():
            self._response.close()
        self._response.release()

    async def __aenter__(self) -> "AiohttpAnswer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def base_url(row: EngineRow) -> str:
    host = f"[{row.host}]" if ":" in row.host else row.host
    return f"http://{host}:{row.port}"


def refused_header(answer: Answer) -> str:
    return answer.headers.get(HEADER_REFUSED, "")
