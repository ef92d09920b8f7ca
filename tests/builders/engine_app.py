"""Requests straight into the ASGI app of an engine, without a socket."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from cotenant_serving.engine.server import EngineServer


@dataclass
class Exchange:
    """One request to the app: what it sends lands in `writes`; `gone.set()` is the client's disconnect."""

    writes: list[bytes] = field(default_factory=list)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    async def done(self) -> "Exchange":
        assert self.task is not None
        await asyncio.wait_for(self.task, 5)
        return self


def send_to(app: EngineServer, method: str, path: str, body: Any = None, **headers: str) -> Exchange:
    """`body` is bytes, or goes out as JSON. Underscores in names of headers are dashes."""
    exchange = Exchange()
    names = {"authorization": "Bearer t"} | {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    messages = [{"type": "http.request", "body": data}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await exchange.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            exchange.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["body"]:
            exchange.writes.append(message["body"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in names.items()],
    }
    exchange.task = asyncio.create_task(app(scope, receive, send))
    return exchange
