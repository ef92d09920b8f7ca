"""The reference client of engines, on aiohttp: what `upstream_lean` must do, at three times its cost."""

import asyncio
import io
from collections.abc import Callable, Mapping

import aiohttp
import msgspec
import yarl

from cotenant_serving.contract import HEADER_INSTANCE, HEADER_MODEL, HEADER_REQUEST_ID, Usage
from cotenant_serving.contract_gateway import EngineRow
from cotenant_serving.gateway.upstream import (
    CANCEL_S,
    CONNECT_S,
    IDLE_CONNECTION_S,
    LARGE_BODY_BYTES,
    MAX_ANSWER_BYTES,
    MAX_HEAD_BYTES,
    READ_BUFFER_BYTES,
    REQUESTS_PATH,
    EngineLostError,
    EngineUnreachableError,
    Outgoing,
    encoded_path,
    for_head,
    host_and_port,
)


class AiohttpUpstream:
    def __init__(self, token: Callable[[], str]) -> None:
        """`token` gives the pool token at the time of each request. Needs a running event loop."""
        self._token = token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S, use_dns_cache=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES // 2,  # it stops at twice this
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> "AiohttpAnswer":
        body = outgoing.body
        headers = _headers(row, outgoing, request_id) | self._authorization()
        try:
            response = await self._session.request(
                outgoing.method,
                _url(row, outgoing.path),
                data=(body or None) if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError, aiohttp.InvalidURL) as problem:
            raise EngineUnreachableError(type(problem).__name__) from None
        except (aiohttp.ClientError, OSError) as problem:
            raise EngineLostError(type(problem).__name__) from None
        if response.status == 101:
            response.close()
            raise EngineLostError("HTTP 101, which was not asked for")
        return AiohttpAnswer(response)

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        try:
            async with asyncio.timeout(CANCEL_S):
                url = _url(row, REQUESTS_PATH + request_id)
                async with self._session.delete(url, headers=self._authorization()) as response:
                    return msgspec.json.decode(await response.read(), type=Usage) if response.status == 200 else None
        except (aiohttp.ClientError, EngineUnreachableError, OSError, ValueError):
            return None

    async def close(self) -> None:
        await self._session.close()

    def _authorization(self) -> dict[str, str]:
        return {"authorization": "Bearer " + for_head("the pool token", self._token())}


class AiohttpAnswer:
    """`Answer` over one aiohttp response."""

    complete = False
    """Never known: it is always closed."""

    def body(self) -> bytes:
        raise AssertionError("not of an answer that may not be complete")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
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
        try:
            while chunk := await self._next():
                await self._reads.wait()
                if not put(chunk):
                    return
        except BaseException:
            self._response.close()
            raise

    async def _next(self) -> bytes:
        """Empty at the end."""
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


def _url(row: EngineRow, path: str) -> yarl.URL:
    """Raises EngineUnreachableError for an address that is none."""
    try:
        url = yarl.URL(f"http://{host_and_port(row)}{encoded_path(path)}", encoded=True)
        url.explicit_port  # noqa: B018 read only now
    except ValueError as problem:
        raise EngineUnreachableError(type(problem).__name__) from None
    return url


def _headers(row: EngineRow, outgoing: Outgoing, request_id: str) -> dict[str, str]:
    """Raises EngineUnreachableError when it is the row that cannot stand in them."""
    given = {for_head("a header's name", name): for_head(name, value) for name, value in outgoing.headers.items()}
    given[HEADER_REQUEST_ID] = for_head("the request's id", request_id)
    try:
        given[HEADER_INSTANCE] = for_head("its instance", row.instance)
        given[HEADER_MODEL] = for_head("its model", row.model)
    except ValueError as problem:
        raise EngineUnreachableError(str(problem)) from None
    return given
