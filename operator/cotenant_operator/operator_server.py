"""The operator's HTTP API, raw ASGI, on the cluster's inside. Every replica answers, leader or not.

GET  /v1/gateway-config?after=GENERATION&wait_s=S → GatewayConfig, or 204 when nothing is newer   pool token
POST /v1/usage      UsageBatch → UsageReceipt                                                     pool token
GET  /healthz, /readyz, /metrics                                                                  no token
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.usage_ledger import LedgerError
from cotenant_operator.usage_store import UsageStoreError
from cotenant_serving.contract_usage import UsageBatch, UsageReceipt
from cotenant_serving.inner_api import Answer, InnerApi, Scope, asked, refusal, server_of, wait_of

log = logging.getLogger("cotenant.operator")

_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class OperatorApi(InnerApi):
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
        self._published, self._add_usage = published, add_usage
        self._not_ready, self._metrics_text = ready, metrics
        routes = {
            ("GET", "/v1/gateway-config"): ("pool", self._gateway_config),
            ("POST", "/v1/usage"): ("pool", self._usage),
            ("GET", "/healthz"): ("", self._health),
            ("GET", "/readyz"): ("", self._ready),
            ("GET", "/metrics"): ("", self._metrics),
        }
        super().__init__(routes, {"pool": pool_token})

    async def _gateway_config(self, scope: Scope, body: bytes) -> Answer:
        query = asked(scope)
        try:
            after, wait_s = int(query.get("after", "0")), wait_of(query)
        except ValueError as error:
            return refusal(400, f"after and wait_s are numbers: {error}")
        raw = await self._published.after(after, wait_s)
        return Answer(200, raw) if raw is not None else Answer(204, b"")

    async def _usage(self, scope: Scope, body: bytes) -> Answer:
        try:
            batch = msgspec.json.decode(body, type=UsageBatch)
            await self._add_usage(batch)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return refusal(400, f"the body is no UsageBatch: {error}")
        except LedgerError as error:
            # Its gateway sends nothing else before this is taken: somebody has to look.
            log.error("usage of gateway %s is not taken: %s", batch.gateway, error)
            return refusal(400, str(error))
        except UsageStoreError as error:
            return refusal(503, str(error))
        receipt = UsageReceipt(gateway=batch.gateway, boot=batch.boot, sequence=batch.sequence)
        return Answer(200, msgspec.json.encode(receipt))

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, b'{"status":"ok"}')

    async def _ready(self, scope: Scope, body: bytes) -> Answer:
        problem = self._not_ready()
        return refusal(503, problem) if problem else Answer(200, b'{"status":"ready"}')

    async def _metrics(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, self._metrics_text(), _TEXT)


async def serve(api: OperatorApi, host: str, port: int) -> None:
    """Until it is cancelled; what is asked meanwhile gets a second to end."""
    server = server_of(api, host, port, graceful_s=1)
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
