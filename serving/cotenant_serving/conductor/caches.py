"""What the weight caches of the pool's nodes say they have: asked every few seconds, on the cluster's inside.

GET http://NODE:PORT/v1/models → cotenant_cache.contract.NodeReport, or with 503 NodeRefusal      pool token
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from cotenant_cache.contract import NodeRefusal, NodeReport
from cotenant_serving.conductor.cached import MOST_CHARS, NodeCache, unusable
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

    def __init__(
        self, port: int, token: Callable[[], str], *, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`token` gives the text of a token file (see `tokens`). `name` is one whose addresses are asked, too: nodes
        without a worker pod have caches of their own."""
        self._port, self._token, self._name, self._clock = port, token, name, clock
        self._said: dict[str, tuple[NodeCache, float]] = {}
        """Address → what it has, and when it said so."""
        self._complained: dict[str, str] = {}

    def known(self) -> Mapping[str, NodeCache]:
        """Address of a node → what is on its disk, or why it cannot be used. Those of which nothing is known are
        absent."""
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
                await self.ask(session, {*nodes(), *await self._named()})
                await asyncio.sleep(EVERY_S)

    async def _named(self) -> set[str]:
        if not self._name:
            return set()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
        except OSError:  # nobody is there yet
            return set()
        return {str(address[0]) for *_, address in found}

    async def ask(self, session: "aiohttp.ClientSession", nodes: Collection[str]) -> None:
        """All of them, once. Those that are not among `nodes` any more are forgotten."""
        for gone in self._said.keys() - set(nodes):
            del self._said[gone]
        self._complained = {node: said for node, said in self._complained.items() if node in nodes}
        await asyncio.gather(*(self._ask_one(session, node) for node in nodes))

    async def _ask_one(self, session: "aiohttp.ClientSession", node: str) -> None:
        try:
            cache = await self._answer(session, node)
            self._said[node] = (cache, self._clock())
            problem = ": ".join(cache.problem or ())
        except Exception as error:  # whatever a node says or does not say: the conductor goes on without it
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
        if problem and problem != self._complained.get(node):
            log.warning("the weight cache of %s does not say what it has, asking on: %s", node, problem)
        self._complained[node] = problem

    async def _answer(self, session: "aiohttp.ClientSession", node: str) -> NodeCache:
        host = f"[{node}]" if ":" in node else node
        headers = {"authorization": f"Bearer {shown(self._token())}"}
        url = f"http://{host}:{self._port}/v1/models"
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status not in (200, 503):
                raise ValueError(f"it answered {answer.status}")
            body = bytearray()
            async for block in answer.content.iter_chunked(2**16):
                body += block
                if len(body) > MOST_BYTES:
                    raise ValueError(f"its answer has more than {MOST_BYTES} bytes")
            if answer.status == 200:
                return NodeCache.of(msgspec.json.decode(body, type=NodeReport))
            return _refused(bytes(body), node)


def _refused(body: bytes, node: str) -> NodeCache:
    """Raises MsgspecError, and ValueError where it does not say why."""
    said = msgspec.json.decode(body, type=NodeRefusal)
    if not said.reason:
        raise ValueError(f"it answered 503: {said.error[:MOST_CHARS]}")
    return unusable(said, node)
