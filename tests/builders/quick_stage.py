"""The gateway's app on a real port before an engine of bare sockets, in this process: the way of a usual request."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from cotenant_serving.contract_gateway import Table
from cotenant_serving.gateway.asgi import GatewayApp
from cotenant_serving.gateway.board import LocalBoard, LocalCount
from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps
from cotenant_serving.gateway.config import index
from cotenant_serving.gateway.connections import Connections
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.protocol import Connection
from cotenant_serving.gateway.settings import Settings
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.gateway.upstream_lean import LeanUpstream
from cotenant_serving.gateway.usage import UsageLog
from cotenant_serving.gateway.usage_file import UsageFile
from tests.builders.gateway import KEYS, config, model_row, row, tenant
from tests.builders.raw_engine import RawEngine

MODEL = "search/echo"
PATIENCE_S = 20.0
"""Only ends a test that would otherwise never end."""


def asking(text: str = "hi", **more: Any) -> bytes:
    """A usual chat, head and body in one piece."""
    body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more})
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (KEYS["search"].encode(), len(body), body)
    )


@dataclass
class _Server:
    connections: set[Connection] = field(default_factory=set)
    tasks: set[Any] = field(default_factory=set)


class _NoPages:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no page was asked for")


class QuickStage:
    """`gateway` for a look inside; `quick_starts`: requests that began without a coroutine."""

    def __init__(self, folder: Path, *engines: RawEngine, **limits: int) -> None:
        self.engines = engines
        self.quick_starts = 0
        self.server = _Server()
        self._folder, self._limits = folder, limits
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "QuickStage":
        for engine in self.engines:
            await self._stack.enter_async_context(engine)
        self.gateway = self._gateway()
        self.show(*range(len(self.engines)))
        app = GatewayApp(self.gateway, _NoPages())
        self._count_starts(app)
        loop = asyncio.get_running_loop()
        shared = Connections(ConnectionCap(64, LocalCount()), TenantCaps(64, LocalBoard()))
        listening = await loop.create_server(lambda: Connection(shared, app, self.server, loop), "127.0.0.1", 0)
        self._stack.callback(listening.close)
        self._stack.push_async_callback(self.gateway.upstream.close)
        self.port = listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in tuple(self.server.connections):
            connection.transport.abort()
        await self._stack.aclose()
        self.gateway.usage.close(time.time())

    def show(self, *numbers: int) -> None:
        """The engines that the table has from now on, by their numbers."""
        rows = [row(f"i{n}", host="127.0.0.1", port=self.engines[n].port, slots=8, model=MODEL) for n in numbers]
        table = Table(epoch="e", sequence=1, engines=tuple(rows), models=(model_row(model=MODEL),))
        self.gateway.dispatcher.set_view(combine([merge(None, table)]))
        self.gateway.dispatcher.set_reachable(True)

    def revoke(self) -> None:
        """The tenant has no key from now on."""
        assert self.gateway.directory is not None
        known = self.gateway.directory.config
        without = tuple(msgspec.structs.replace(one, key_sha256=()) for one in known.tenants)
        self.gateway.use(index(msgspec.structs.replace(known, tenants=without)))

    async def client(self) -> "QuickClient":
        """A connection that has shown its key: what it asks next is usual."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        client = QuickClient(reader, writer)
        for _ in range(2):  # the first is read line by line, the second is known by its head
            assert (await client.ask(asking()))[0] == 200
        assert self.at_rest
        return client

    def records(self) -> list[dict[str, Any]]:
        """Usage records, oldest first."""
        return [orjson.loads(line) for line in (self._folder / "usage.jsonl").read_bytes().splitlines()]

    @property
    def at_rest(self) -> bool:
        """No slot is taken, nothing is in flight, and the journal knows of nothing."""
        gateway = self.gateway
        tenant_limits = gateway.limits(gateway.directory.tenants["search"].tenant) if gateway.directory else None
        return (
            not gateway.exchanges
            and not gateway.dispatcher.running(MODEL)
            and not gateway.usage.journal.contents().requests
            and (tenant_limits is None or not tenant_limits.running)
        )

    def _gateway(self) -> Gateway:
        board = LocalBoard()
        gateway = Gateway(
            settings=Settings(),
            clock=time.monotonic,
            board=board,
            dispatcher=Dispatcher(clock=time.monotonic, rng=random.Random(1), board=board),
            upstream=LeanUpstream(lambda: "token"),
            usage=UsageLog(
                UsageFile(self._folder / "usage.jsonl", LocalCount()),
                Journal.in_memory(16),
                waiting=LocalCount(),
                dropped=LocalCount(),
            ),
            metrics=Metrics(),
            pool_known=lambda: True,
        )
        gateway.use(index(config(tenant("search", models=(MODEL,), **self._limits))))
        return gateway

    def _count_starts(self, app: GatewayApp) -> None:
        begin = app.quick.begin if app.quick is not None else None
        assert begin is not None

        def counted(client: Any, route: Any) -> bool:
            began = begin(client, route)
            self.quick_starts += began
            return began

        app.quick.begin = counted  # type: ignore[method-assign, union-attr]


@dataclass
class QuickClient:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        self.send(data)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            line, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(line.split()[1]), headers, body

    def leave(self) -> None:
        self.writer.transport.abort()
