"""The operator's HTTP API, raw ASGI, on the cluster's inside. Every replica answers, leader or not.

GET  /v1/gateway-config?after=GENERATION&wait_s=S → GatewayConfig, or 204 when nothing is newer   pool token
POST /v1/usage      UsageBatch → UsageReceipt                                                     pool token
GET  /healthz, /readyz, /metrics                                                                  no token
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.usage_ledger import LedgerError
from cotenant_operator.usage_store import UsageStoreError
from cotenant_serving.contract_usage import UsageBatch, UsageReceipt

log = logging.getLogger("cotenant.operator")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes]
MAX_BODY_BYTES = 8 << 20
MAX_WAIT_S = 60.0


class OperatorApi:
    """`ready` says why this process is not ready yet, or ""; `add_usage` raises LedgerError and UsageStoreError."""

    def __init__(
        self,
        *,
        published: PublishedConfig,
        pool_token: Callable[[], str],
        ready: Callable[[], str],
        metrics: Callable[[], bytes],
        add_usage: Callable[[UsageBatch], Awaitable[None]],
    ) -> None:
        self._published, self._pool_token = published, pool_token
        self._not_ready, self._metrics_text, self._add_usage = ready, metrics, add_usage
        self._routes: Mapping[tuple[str, str], tuple[bool, Callable[[Scope, bytes], Awaitable[Answer]]]] = {
            ("GET", "/v1/gateway-config"): (True, self._gateway_config),
            ("POST", "/v1/usage"): (True, self._usage),
            ("GET", "/healthz"): (False, self._health),
            ("GET", "/readyz"): (False, self._ready),
            ("GET", "/metrics"): (False, self._metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        status, body = await self._answer(scope, receive)
        text = scope["path"] == "/metrics" and status == 200
        kind = b"text/plain; version=0.0.4; charset=utf-8" if text else b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            return _error(404, f"no route {scope['method']} {scope['path']}")
        needs_token, handler = route
        if needs_token and not self._allowed(scope):
            return _error(401, "this route needs the pool token as bearer")
        body = await _body(receive)
        if body is None:
            return _error(413, f"the body is over {MAX_BODY_BYTES} bytes")
        return await handler(scope, body)

    def _allowed(self, scope: Scope) -> bool:
        token = self._pool_token()
        given = dict(scope["headers"]).get(b"authorization", b"")
        return bool(token) and hmac.compare_digest(given, b"Bearer " + token.encode())

    async def _gateway_config(self, scope: Scope, body: bytes) -> Answer:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        try:
            after = int(query.get("after", ["0"])[0])
            wait_s = min(MAX_WAIT_S, max(0.0, float(query.get("wait_s", ["0"])[0])))
        except ValueError as error:
            return _error(400, f"after and wait_s are numbers: {error}")
        raw = await self._published.after(after, wait_s)
        return (200, raw) if raw is not None else (204, b"")

    async def _usage(self, scope: Scope, body: bytes) -> Answer:
        try:
            batch = msgspec.json.decode(body, type=UsageBatch)
            await self._add_usage(batch)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _error(400, f"the body is no UsageBatch: {error}")
        except LedgerError as error:
            # Its gateway sends nothing else before this is taken: somebody has to look.
            log.error("usage of gateway %s is not taken: %s", batch.gateway, error)
            return _error(400, str(error))
        except UsageStoreError as error:
            return _error(503, str(error))
        receipt = UsageReceipt(gateway=batch.gateway, boot=batch.boot, sequence=batch.sequence)
        return 200, msgspec.json.encode(receipt)

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return 200, b'{"status":"ok"}'

    async def _ready(self, scope: Scope, body: bytes) -> Answer:
        problem = self._not_ready()
        return _error(503, problem) if problem else (200, b'{"status":"ready"}')

    async def _metrics(self, scope: Scope, body: bytes) -> Answer:
        return 200, self._metrics_text()


async def serve(api: OperatorApi, host: str, port: int) -> None:
    """Until it is cancelled; what is asked meanwhile gets a second to end."""
    import uvicorn

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
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


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
