"""The conductor's HTTP API, raw ASGI, on the cluster's inside.

PUT  /v1/desired     Desired         control token   409 when the generation is older than the one in force
GET  /v1/desired     → Desired       control token
GET  /v1/status      → PoolStatus    control token
POST /v1/heartbeat   Heartbeat → HeartbeatReply       pool token
POST /v1/demand      Demand                           pool token
GET  /v1/table?epoch=E&sequence=N&wait_s=S → Table, or 204 when nothing changed   pool token
GET  /healthz, /readyz                                no token
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from cotenant_serving.conductor.conductor import Conductor, StaleGenerationError
from cotenant_serving.contract import Desired, Heartbeat
from cotenant_serving.contract_gateway import Demand

log = logging.getLogger("cotenant.conductor")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes]
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_WAIT_S = 60.0


class Api:
    def __init__(self, conductor: Conductor, *, pool_token: str, control_token: str) -> None:
        self._conductor = conductor
        self._tokens = {"pool": pool_token, "control": control_token}
        self._routes: Mapping[tuple[str, str], tuple[str, Callable[[Scope, bytes], Awaitable[Answer]]]] = {
            ("PUT", "/v1/desired"): ("control", self._put_desired),
            ("GET", "/v1/desired"): ("control", self._get_desired),
            ("GET", "/v1/status"): ("control", self._status),
            ("POST", "/v1/heartbeat"): ("pool", self._heartbeat),
            ("POST", "/v1/demand"): ("pool", self._demand),
            ("GET", "/v1/table"): ("pool", self._table),
            ("GET", "/healthz"): ("", self._health),
            ("GET", "/readyz"): ("", self._ready),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        status, body = await self._answer(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            return _error(404, f"no route {scope['method']} {scope['path']}")
        token, handler = route
        if token and not self._allowed(scope, token):
            return _error(401, f"this route needs the {token} token as bearer")
        body = await _body(receive)
        if body is None:
            return _error(413, f"the body is over {MAX_BODY_BYTES} bytes")
        try:
            return await handler(scope, body)
        except msgspec.MsgspecError as error:
            return _error(400, f"the body is not what {scope['path']} takes: {error}")

    def _allowed(self, scope: Scope, token: str) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, b"Bearer " + self._tokens[token].encode())

    async def _put_desired(self, scope: Scope, body: bytes) -> Answer:
        try:
            self._conductor.set_desired(msgspec.json.decode(body, type=Desired))
        except StaleGenerationError as error:
            return _error(409, str(error))
        return 200, b"{}"

    async def _get_desired(self, scope: Scope, body: bytes) -> Answer:
        desired = self._conductor.desired
        return (200, msgspec.json.encode(desired)) if desired else _error(404, "no desired state was sent yet")

    async def _status(self, scope: Scope, body: bytes) -> Answer:
        return 200, msgspec.json.encode(self._conductor.status())

    async def _heartbeat(self, scope: Scope, body: bytes) -> Answer:
        return 200, msgspec.json.encode(self._conductor.heard(msgspec.json.decode(body, type=Heartbeat)))

    async def _demand(self, scope: Scope, body: bytes) -> Answer:
        self._conductor.demanded(msgspec.json.decode(body, type=Demand))
        return 200, b"{}"

    async def _table(self, scope: Scope, body: bytes) -> Answer:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        try:
            epoch = query.get("epoch", [""])[0]
            sequence = int(query.get("sequence", ["0"])[0])
            wait_s = min(MAX_WAIT_S, max(0.0, float(query.get("wait_s", ["0"])[0])))
        except ValueError as error:
            return _error(400, f"sequence and wait_s are numbers: {error}")
        table = await self._conductor.table_after(epoch, sequence, wait_s)
        return (200, msgspec.json.encode(table)) if table else (204, b"")

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return 200, b'{"status":"ok"}'

    async def _ready(self, scope: Scope, body: bytes) -> Answer:
        if self._conductor.table.sequence == 0:
            return _error(503, "not reconciled with Serve yet")
        return 200, b'{"status":"ready"}'


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


def _error(status: int, message: str) -> Answer:
    return status, msgspec.json.encode({"error": message})
