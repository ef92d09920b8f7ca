"""What the small HTTP APIs inside a cluster share, conductor's, operator's and weight cache's: ASGI, JSON, tokens."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from cotenant_serving.tokens import opens

if TYPE_CHECKING:
    import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 8 << 20
MAX_WAIT_S = 60.0


class Answer(NamedTuple):
    status: int
    body: bytes
    kind: bytes = b"application/json"


class Stream(NamedTuple):
    """An answer that comes bit by bit. Its generator is closed, wherever it is, when the one who asked has left."""

    status: int
    chunks: AsyncGenerator[bytes, None]
    kind: bytes = b"application/x-ndjson"
    headers: tuple[tuple[bytes, bytes], ...] = ()


App = Callable[[Scope, Receive, Send], Awaitable[None]]

Handler = Callable[[Scope, bytes], Awaitable[Answer | Stream]]
"""Of a request with its whole body. A body of which it raises MsgspecError was not what the route takes."""


class InnerApi:
    def __init__(
        self,
        routes: Mapping[tuple[str, str], tuple[str, Handler]],
        tokens: Mapping[str, Callable[[], str]],
    ) -> None:
        """`routes`: (method, path) → the name of the token that it needs, or "", and what answers. `tokens`: each
        gives the text of a token file as it is now (see `tokens`), of which each token opens a route, and none none.
        """
        self._routes, self._tokens = routes, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        answer = await self._answer(scope, receive)
        if isinstance(answer, Stream):
            await _relay(answer, receive, send)
            return
        status, body, kind = answer
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | Stream:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            return refusal(404, f"no route {scope['method']} {scope['path']}")
        token, handler = route
        if token and not self._allowed(scope, token):
            return refusal(401, f"this route needs the {token} token as bearer")
        body = await _body(receive)
        if body is None:
            return refusal(413, f"the body is over {MAX_BODY_BYTES} bytes")
        try:
            return await handler(scope, body)
        except msgspec.MsgspecError as error:
            return refusal(400, f"the body is not what {scope['path']} takes: {error}")

    def _allowed(self, scope: Scope, name: str) -> bool:
        return opens(dict(scope["headers"]).get(b"authorization", b""), self._tokens[name]())


def refusal(status: int, message: str) -> Answer:
    return Answer(status, msgspec.json.encode({"error": message}))


def asked(scope: Scope) -> dict[str, str]:
    """The query; of a name that stands there several times, the first."""
    return {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


def wait_of(query: Mapping[str, str]) -> float:
    """How long a long poll may take, seconds. Raises ValueError."""
    return min(MAX_WAIT_S, max(0.0, float(query.get("wait_s", "0"))))


def server_of(api: App, host: str, port: int, *, graceful_s: int | None = None) -> "uvicorn.Server":
    """Of a process that hears its signals itself. `graceful_s`: for requests that run, when it ends."""
    import uvicorn

    from cotenant_serving.accepting import QuietServer

    config = uvicorn.Config(
        api,
        host=host,
        port=port,
        loop="none",
        http="httptools",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=graceful_s,
    )
    return QuietServer(config)


async def _relay(answer: Stream, receive: Receive, send: Send) -> None:
    """Until its end, or until the one who asked has left."""
    headers = [(b"content-type", answer.kind), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    sending = asyncio.create_task(_send_all(answer, send))
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        await answer.chunks.aclose()


async def _send_all(answer: Stream, send: Send) -> None:
    async for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
