"""What the weight caches of the pool's nodes say they have: asked every few seconds, on the cluster's inside.

GET http://NODE:PORT/v1/models → cotenant_cache.contract.NodeReport      pool token
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from cotenant_cache.contract import NodeReport
from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.tokens import shown

if TYPE_CHECKING:
    import aiohttp

EVERY_S = 5.0
TIMEOUT_S = 2.0
FORGET_S = 20.0
"""What a node said so long ago counts no more: it is then as one of which nothing is known."""
MOST_BYTES = 16 * 2**20
"""Of an answer: thousands of models."""

log = logging.getLogger("cotenant.conductor")


class Caches:
    """Owns the last word of each node. A node that is silent is asked again, and holds nobody up."""

    def __init__(self, port: int, token: Callable[[], str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`token` gives the text of a token file (see `tokens`)."""
        self._port, self._token, self._clock = port, token, clock
        self._said: dict[str, tuple[NodeCache, float]] = {}
        """Address → what it has, and when it said so."""
        self._complained: dict[str, str] = {}

    def known(self) -> Mapping[str, NodeCache]:
        """Address of a node → what is on its disk. Those of which nothing is known are absent."""
        now_s = self._clock()
        return {node: cache for node, (cache, at_s) in self._said.items() if now_s - at_s < FORGET_S}

    async def run(self, nodes: Callable[[], Collection[str]]) -> None:
        """Until cancelled. `nodes`: addresses of those that are there now."""
        import aiohttp

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=3 * EVERY_S),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as session:
            while True:
                await self.ask(session, nodes())
                await asyncio.sleep(EVERY_S)

    async def ask(self, session: "aiohttp.ClientSession", nodes: Collection[str]) -> None:
        """All of them, once. Those that are not among `nodes` any more are forgotten."""
        for gone in self._said.keys() - set(nodes):
            del self._said[gone]
        self._complained = {node: said for node, said in self._complained.items() if node in nodes}
        await asyncio.gather(*(self._ask_one(session, node) for node in nodes))

    async def _ask_one(self, session: "aiohttp.ClientSession", node: str) -> None:
        try:
            self._said[node] = (NodeCache.of(await self._report(session, node)), self._clock())
            problem = ""
        except Exception as error:  # whatever a node says or does not say: the conductor goes on without it
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
        if problem and problem != self._complained.get(node):
            log.warning("the weight cache of %s does not say what it has, asking on: %s", node, problem)
        self._complained[node] = problem

    async def _report(self, session: "aiohttp.ClientSession", node: str) -> NodeReport:
        host = f"[{node}]" if ":" in node else node
        headers = {"authorization": f"Bearer {shown(self._token())}"}
        url = f"http://{host}:{self._port}/v1/models"
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status}")
            body = bytearray()
            async for block in answer.content.iter_chunked(2**16):
                body += block
                if len(body) > MOST_BYTES:
                    raise ValueError(f"its answer has more than {MOST_BYTES} bytes")
            return msgspec.json.decode(body, type=NodeReport)
