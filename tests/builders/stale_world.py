"""Gateways with old tables among engines that die and whose addresses are used again: one seeded schedule of it.

Real: dispatcher, merging of tables, exchange, lean client, the engine's server and its `echo`. Written down: the
network (in memory, or loopback), who dies when, and what conductors know when.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from uvicorn import Config
from uvicorn.server import ServerState

from cotenant_serving.contract import HEADER_INSTANCE, EchoOptions, Reason
from cotenant_serving.contract_gateway import EngineRow, Limits, ModelRow, Table
from cotenant_serving.engine.base import Prompt
from cotenant_serving.engine.echo import EchoEngine, prompt_words, verify
from cotenant_serving.engine.protocol import EngineProtocol
from cotenant_serving.engine.server import EngineServer
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.gateway import table
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.board import LocalAccount, LocalBoard, LocalCount
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.settings import Settings
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream import Outgoing
from cotenant_serving.gateway.upstream_lean import Connect, LeanUpstream
from cotenant_serving.gateway.usage import UsageLog
from cotenant_serving.gateway.usage_file import UsageFile
from tests.builders.client import FakeClient
from tests.builders.engine import echo_args
from tests.builders.gateway import POOL_TOKEN

MODELS = ("search/chat", "search/code", "ads/chat")
"""Of two tenants: what is before the slash owns the model."""
LENGTH_S = 12.0
"""In which requests come and engines go; all times here are of the simulated network."""
TOKENS_PER_S = 40.0
HOLD_S, REQUEST_S = 20.0, 60.0
Address = tuple[str, int]


class Place(Protocol):
    """Where engines listen and gateways connect to them. What it gives for listening is what it takes to kill."""

    connect: Connect | None

    async def listen(self, address: Address, accept: Callable[[], asyncio.Protocol]) -> Any: ...

    async def kill(self, listening: Any, how: str) -> None:
        """`how`: "reset", "vanish" or "keep" (connections without a request go to whoever listens there next)."""


class _WatchedEcho(EchoEngine):
    """Keeps what it was asked to work on."""

    def __init__(self, world: "World", model: str) -> None:
        super().__init__(EchoOptions(tokens_per_second=TOKENS_PER_S / world.scale), context_tokens=4096)
        self._world, self._model = world, model

    async def encode(self, request: Any) -> Prompt:
        words = prompt_words(request)
        if words[0] != self._model:
            self._world.violations.append(f"an engine of {self._model} works on a prompt for {words[0]}")
        return await super().encode(request)


class SimulatedEngine:
    """An engine process: the real server app behind uvicorn's protocol."""

    def __init__(self, world: "World", instance: str, model: str, address: Address) -> None:
        args = echo_args(model=model, slots=2)
        host, port = address
        self._world, self.model, self.address, self.instance = world, model, address, instance
        self._status = EngineStatus(args, instance=instance, host=host, port=port)
        self._status.ready()
        self._echo = _WatchedEcho(world, model)
        self._server = EngineServer(self._echo, self._status, lambda: POOL_TOKEN)
        self._config = Config(
            self._app, interface="asgi3", loop="none", ws="none", lifespan="off", log_config=None, access_log=False
        )
        self._config.load()
        self._state = ServerState()
        self.alive = True
        self.listening: Any = None

    @property
    def row(self) -> EngineRow:
        host, port = self.address
        return EngineRow(instance=self.instance, model=self.model, revision="r", host=host, port=port, slots=2)

    def accept(self) -> asyncio.Protocol:
        return EngineProtocol(self._config, self._state, {}, asyncio.get_running_loop())

    async def die(self, how: str) -> None:
        self.alive = False
        await self._world.place.kill(self.listening, how)
        self._server.cancel_all()
        self._echo.close()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        meant = dict(scope["headers"]).get(HEADER_INSTANCE.encode(), b"").decode()
        foreign = scope["method"] == "POST" and meant != self.instance

        async def reading() -> Any:
            if foreign:
                self._world.violations.append(f"{self.instance} reads the body of a request for {meant or 'anyone'}")
            return await receive()

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start" and foreign:
                self._world.seen["misdirected"] += 1
                if message["status"] != 421:
                    self._world.violations.append(f"{self.instance} answers {message['status']} for {meant}")
            await send(message)

        await self._server(scope, reading, sending)


class SimulatedGateway:
    """`known`: the table it begins with, however old."""

    def __init__(self, world: "World", known: table.Known | None) -> None:
        loop = asyncio.get_running_loop()
        self.known = known
        self.dispatcher = Dispatcher(clock=loop.time, rng=random.Random(world.rng.random()))
        self.dispatcher.set_reachable(True)
        self.upstream = LeanUpstream(lambda: POOL_TOKEN, world.place.connect)
        count = LocalCount
        file = UsageFile(world.folder / "usage.jsonl", count())
        usage = UsageLog(file, Journal.in_memory(64), waiting=count(), dropped=count())
        self.gateway = Gateway(
            settings=Settings(hold_timeout_s=HOLD_S * world.scale, request_timeout_s=REQUEST_S * world.scale),
            clock=loop.time,
            board=LocalBoard(),
            dispatcher=self.dispatcher,
            upstream=self.upstream,
            usage=usage,
            metrics=world.metrics,
            pool_known=lambda: True,
        )
        if known is not None:
            self.dispatcher.set_view(table.combine([known]))

    async def close(self) -> None:
        await self.upstream.close()
        self.gateway.usage.close(0.0)

    def hear(self, heard: Table) -> None:
        self.known = table.merge(self.known, heard)
        self.dispatcher.set_view(table.combine([self.known]))


@dataclass
class World:
    """`violations`: what must never happen. `seen`: how often what this is about did happen."""

    place: Place
    rng: random.Random
    folder: Path
    metrics: Metrics
    addresses: tuple[Address, ...]
    scale: float = 1.0
    """Seconds that one second of the schedule takes."""
    num_requests: int = 24
    violations: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    engines: dict[Address, SimulatedEngine] = field(default_factory=dict)
    gateways: list[SimulatedGateway] = field(default_factory=list)
    _tables: list[Table] = field(default_factory=list)
    _listed: dict[str, EngineRow] = field(default_factory=dict)
    _gone: list[str] = field(default_factory=list)
    _epoch: int = 0
    _numbers: int = 0

    async def run(self) -> None:
        """One schedule. Returns when every request has ended; raises if one of them does not."""
        for address, model in zip(self.addresses, MODELS, strict=False):
            await self._start(address, model)
        self._publish()
        self.gateways = [SimulatedGateway(self, None) for _ in range(2)]
        for gateway in self.gateways:
            gateway.hear(self._tables[-1])
        disturbing = [asyncio.create_task(work) for work in (self._disturb(), self._inform(), self._sweep())]
        async with asyncio.timeout(self.scale * (LENGTH_S + REQUEST_S) + 120):
            await asyncio.gather(*(self._request(number) for number in range(self.num_requests)))
        for task in disturbing:
            task.cancel()
        for outcome in await asyncio.gather(*disturbing, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        for gateway in self.gateways:
            await gateway.close()
        for engine in self.engines.values():
            await engine.die("reset")
        await asyncio.sleep(0.1)

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.scale)

    async def _start(self, address: Address, model: str) -> None:
        self._numbers += 1
        engine = self.engines[address] = SimulatedEngine(self, f"i{self._numbers}", model, address)
        engine.listening = await self.place.listen(address, engine.accept)

    # What goes wrong.

    async def _disturb(self) -> None:
        until = asyncio.get_running_loop().time() + LENGTH_S * self.scale
        while asyncio.get_running_loop().time() < until:
            await self._pass(self.rng.expovariate(1.5))
            happens = (self._reuse, self._reuse, self._reuse, self._restart_conductor, self._restart_gateway)
            await self.rng.choice(happens)()

    async def _reuse(self) -> None:
        """An engine dies, and its address goes to another one: of another model, another tenant, or the same."""
        engine = self.engines[self.rng.choice(list(self.engines))]
        how = self.rng.choice(("reset", "keep", "keep", "vanish"))
        await engine.die(how)
        await self._pass(self.rng.choice((0.0, 0.01, 0.3)))
        await self._start(engine.address, self.rng.choice(MODELS))
        self.seen["reused"] += 1

    async def _restart_conductor(self) -> None:
        """It knows little at first, and nothing of who is gone."""
        self._epoch += 1
        self._listed.clear()
        self._gone.clear()

    async def _restart_gateway(self) -> None:
        """A new one beside the old, with a table from its file: the old one ends the requests that it has."""
        known = self.gateways[0].known
        old = self.rng.choice(self._tables)
        self.gateways.append(SimulatedGateway(self, table.merge(None, old) if self.rng.random() < 0.7 else known))

    # What is known.

    def _publish(self) -> None:
        alive = {engine.instance: engine.row for engine in self.engines.values() if engine.alive}
        self._gone += [instance for instance in self._listed if instance not in alive]
        self._listed = alive
        rows = tuple(alive.values())
        models = tuple(ModelRow(model=model, state="waking", reason=Reason.WAKING, eta_s=1.0) for model in MODELS)
        epoch, sequence, gone = f"e{self._epoch}", len(self._tables), tuple(self._gone)
        self._tables.append(Table(epoch=epoch, sequence=sequence, engines=rows, models=models, gone=gone))

    async def _inform(self) -> None:
        """Conductors learn late, and gateways later: of one table in two, or of an old one."""
        while True:
            await self._pass(self.rng.uniform(0.1, 1.5))
            self._publish()
            for gateway in self.gateways:
                if self.rng.random() < 0.5:
                    gateway.hear(self._tables[-1] if self.rng.random() < 0.7 else self.rng.choice(self._tables))

    async def _sweep(self) -> None:
        while True:
            await self._pass(1.0)
            for gateway in self.gateways:
                gateway.gateway.end_overdue()
                gateway.gateway.leave_silent_engines()

    # What is asked.

    async def _request(self, number: int) -> None:
        await self._pass(self.rng.uniform(0, LENGTH_S))
        gateway = self.rng.choice(self.gateways[-3:]).gateway
        model, stream = self.rng.choice(MODELS), self.rng.random() < 0.5
        text = f"{model} request {number} " + "word " * self.rng.choice((1, 20, 60))
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        outgoing = Outgoing(
            "POST", "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        limits = TenantLimits("search", Limits(), LocalAccount(), 0.0)
        id_ = f"req-{number}"
        call = Call(id_, outgoing, model.partition("/")[0], model, stream, 1, 1, limits, gateway.clock())
        client = FakeClient()
        await Exchange(gateway, call, Reply(client, id_), client).run()
        self._judge(client, text, stream)

    def _judge(self, client: FakeClient, text: str, stream: bool) -> None:
        """A whole answer to this prompt, a typed error, or a broken stream that says so."""
        wrong = self.violations.append
        if not client.ended:
            wrong(f"{text[:30]}: the answer has no end")
        elif client.status != 200:
            self.seen[f"HTTP {client.status}"] += 1
            if "message" not in json.loads(client.body)["error"] or client.status not in (502, 503, 504):
                wrong(f"{text[:30]}: HTTP {client.status} {client.body[:200]!r}")
        else:
            said, broken = _said(client.body, stream)
            whole = verify(said) and said.split()[:-1] == text.split()
            self.seen["broken" if broken else "whole"] += 1
            if whole == broken:
                wrong(f"{text[:30]}: {'broken' if broken else 'whole'}, and its text is {said[:80]!r}")


def _said(body: bytes, stream: bool) -> tuple[str, bool]:
    """The text of an answer, and whether it ended with an error."""
    if not stream:
        return json.loads(body)["choices"][0]["message"]["content"], False
    events = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    done = events[-1] == "[DONE]"
    parsed = [json.loads(event) for event in events if event != "[DONE]"]
    deltas = [event["choices"][0]["delta"].get("content", "") for event in parsed if event.get("choices")]
    assert done != any("error" in event for event in parsed), f"neither end nor error: {events[-1]}"
    return "".join(deltas), not done
