"""Calls an ASGI app for one request: what does not go to engines is answered by a framework."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cotenant_serving.gateway.client import ClientGoneError
from cotenant_serving.gateway.eager import as_task
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.request import Request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


CLIENT = "cotenant.client"
"""Where the scope has its `Client`, for what ASGI has no word for."""


async def call_page(app: AsgiApp, request: Request, transport: asyncio.BaseTransport) -> None:
    """Returns when the app does."""
    await as_task()
    call = _Call(request)
    await app(_scope(request, transport), call.receive, call.send)


def _scope(request: Request, transport: asyncio.BaseTransport) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0" if request.start.old else "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.start.raw_path,
        "query_string": request.start.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": _address(transport, "peername"),
        "server": _address(transport, "sockname"),
        "state": {},
        CLIENT: request,
    }


def _address(transport: asyncio.BaseTransport, which: str) -> tuple[str, int] | None:
    try:
        found = transport.get_extra_info(which)
    except (OSError, ValueError):  # uvloop's, of a connection that was reset a moment ago
        return None
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


class _Call:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._read = False
        self._gone: asyncio.Event = asyncio.Event()
        request.watch(self._gone.set, _nothing, _nothing)

    async def receive(self) -> Message:
        request = self._request
        if not self._read:
            try:
                body = request.take_body()
                part = await request.body_part() if body is None else body
            except TimeoutError:
                request.fail(error("body_too_slow"))
                return {"type": "http.disconnect"}
            except ClientGoneError:
                return {"type": "http.disconnect"}
            self._read = body is not None or not part
            return {"type": "http.request", "body": part, "more_body": not self._read}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        request = self._request
        await request.drained()
        if not request.open:
            return
        if message["type"] == "http.response.start":
            _begin(request, message)
            return
        chunk = message.get("body", b"")
        if message.get("more_body", False):
            if chunk:
                request.write(chunk)
        else:
            request.end(chunk)
            self._gone.set()


def _begin(request: Request, message: Message) -> None:
    length, fields = None, []
    for name, value in message.get("headers", ()):
        if name == b"content-length":
            length = int(value)
        elif name == b"connection":
            request.keep_alive = request.keep_alive and value.lower() != b"close"
        elif name != b"transfer-encoding":
            fields.append(b"%b: %b\r\n" % (name, value))
    request.begin(message["status"], b"".join(fields), length)


def _nothing() -> None:
    pass
