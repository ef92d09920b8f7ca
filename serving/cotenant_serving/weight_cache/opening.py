"""A volume that cannot be opened: the instance is there all the same, says why, and tries again.

Were it to end instead, no container after it in its pod would start, and models that need no cache would go with it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

import msgspec

from cotenant_cache.cache import Cache
from cotenant_cache.contract import EnsureRequest, NodeRefusal, Progress
from cotenant_cache.errors import CacheError
from cotenant_serving.inner_api import Answer, Handler, InnerApi, Receive, Scope, Send, Stream, refusal
from cotenant_serving.weight_cache.node import line

AGAIN_S = 5.0

log = logging.getLogger("cotenant.cache")


class Closed(InnerApi):
    """The API of an instance without a volume: alive, and of every model the reason why it cannot be had."""

    def __init__(self, error: CacheError, token: Callable[[], str] | None, node: str) -> None:
        """`token` as of `CacheApi`."""
        self._error, self._node = error, node
        pool = "" if token is None else "pool"
        others = [("GET", "models"), ("POST", "leases"), ("POST", "evict"), ("GET", "listing"), ("GET", "blob")]
        routes: dict[tuple[str, str], tuple[str, Handler]] = {
            ("GET", "/healthz"): ("", self._health),
            ("GET", "/metrics"): ("", self._unscraped),
            ("POST", "/v1/ensure"): (pool, self._ensure),
            **{(method, f"/v1/{name}"): (pool, self._refused) for method, name in others},
        }
        super().__init__(routes, {} if token is None else {"pool": token})

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, b'{"status":"no volume"}')

    async def _unscraped(self, scope: Scope, body: bytes) -> Answer:
        return refusal(503, self._error.reason)  # the message has paths, and this route asks for no token

    async def _refused(self, scope: Scope, body: bytes) -> Answer:
        reason, message = self._error.reason, self._error.message
        said = NodeRefusal(error=f"{reason}: {message}", node=self._node, reason=reason, message=message)
        return Answer(503, msgspec.json.encode(said))

    async def _ensure(self, scope: Scope, body: bytes) -> Stream:
        return Stream(200, self._failed(msgspec.json.decode(body, type=EnsureRequest).source))

    async def _failed(self, source: str) -> AsyncGenerator[bytes, None]:
        yield line(Progress(source=source, phase="failed", reason=self._error.reason, message=self._error.message))


class Front:
    """What one listener serves: `api`, which may be another one for the next request."""

    def __init__(self, api: InnerApi) -> None:
        self.api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.api(scope, receive, send)


async def opened(make: Callable[[], Cache], failed: Callable[[CacheError], None]) -> Cache:
    """Until it can be opened; `failed` is told each time that it cannot."""
    while True:
        try:
            return await asyncio.to_thread(make)
        except CacheError as error:
            log.error("the volume cannot be used, it is tried again in %.0f s: %s", AGAIN_S, error.message)
            failed(error)
            await asyncio.sleep(AGAIN_S)
