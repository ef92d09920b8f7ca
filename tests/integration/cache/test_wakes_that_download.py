"""A wake that must download, from its first moment: a real conductor, a real cache on a node, and a real gateway.

Written down is what Ray says: which pods there are.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.builders.cache_nodes import TOKEN, CacheProgram
from tests.builders.conductor import args, beat, desired, group, model, pod, spec
from tests.builders.gateway import POOL_TOKEN, GatewayProcess, chat, config, raw_connection, raw_request
from tests.builders.gateway_calls import error_of, post_chat
from tests.builders.ports import free_port

from cotenant_serving.conductor.api import Api
from cotenant_serving.conductor.caches import Caches
from cotenant_serving.conductor.conductor import Conductor, Settings
from cotenant_serving.conductor.observed import App
from cotenant_serving.conductor.store import Store
from cotenant_serving.conductor.world import Device
from cotenant_serving.contract import EngineArgs, ModelStatus, Reason, WeightsLoad, WorkerGroup
from cotenant_serving.contract_gateway import Demand, ModelDemand
from cotenant_serving.inner_api import server_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

GB = 10**9
NAME = "search/echo"
CHAT = model(NAME, source="hf://org/chat@" + "a" * 40, weights=8 * GB)
BEFORE = args(spec("search/before"))
"""An engine from whose load the conductor has learned its rates: 0.1 GB/s from the hub, and 6 s besides."""
LOADED = WeightsLoad(fetched_bytes=8 * GB, fetched_s=80, read_bytes=8 * GB, read_s=2)
MUST_FETCH = "its weights must be fetched: 8.0 GB"
DEADLINE_S = 60.0


class FakeRay:
    """Serve and Ray as the conductor sees them: pods come when a test says so."""

    def __init__(self) -> None:
        self.running = {BEFORE.app: App("running")}
        self.there: tuple[Device, ...] = ()
        self.asked: list[Mapping[str, int]] = []
        self.started: list[EngineArgs] = []

    def devices(self, groups: Sequence[WorkerGroup]) -> tuple[Device, ...]:
        return self.there

    def apps(self) -> dict[str, App]:
        return dict(self.running)

    def start(self, args: EngineArgs, node: str, group: str) -> None:
        self.started.append(args)
        self.running[args.app] = App("deploying")

    def delete(self, app: str) -> None:
        self.running.pop(app, None)

    def ask(self, pods: Mapping[str, int]) -> None:
        self.asked.append(dict(pods))


class Stage:
    """The conductor of a pool without any worker pod, which may have one."""

    def __init__(self, folder: Path, cache_port: int, *, per_pod: bool) -> None:
        self.ray, self.port = FakeRay(), free_port()
        self.caches = Caches(cache_port, lambda: TOKEN, name="127.0.0.1")
        settings = Settings(url=f"http://127.0.0.1:{self.port}", pool_token_file="pool-token")
        self.conductor = Conductor(Store(folder), settings, caches=self.caches.known)
        self.conductor.set_desired(desired(CHAT, groups=(group(most=1),), caches_per_pod=per_pod))
        self.conductor.heard(beat(BEFORE, load=LOADED, load_s=88.0))

    @property
    def status(self) -> ModelStatus:
        return self.conductor.status().models[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stage"]:
        api = Api(self.conductor, pool_token=lambda: POOL_TOKEN, control_token=lambda: "control-token-of-a-test")
        server = server_of(api, "127.0.0.1", self.port, graceful_s=1)
        tasks = [
            asyncio.create_task(self.conductor.run(self.ray)),
            asyncio.create_task(self.caches.run(lambda: self.conductor.nodes)),
        ]
        serving = asyncio.create_task(server.serve())
        try:
            await until(lambda: bool(self.conductor.table.models))
            yield self
        finally:
            for task in tasks:
                task.cancel()
            server.should_exit = server.force_exit = True
            await asyncio.gather(serving, *tasks, return_exceptions=True)


@asynccontextmanager
async def somebody_waits(stage: Stage) -> AsyncIterator[None]:
    """At another gateway, for as long as the model is asked for here: it says so again and again."""

    async def ask() -> None:
        while True:
            stage.conductor.demanded(Demand(gateway="another", models={NAME: ModelDemand(queued=1)}))
            await asyncio.sleep(0.2)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


async def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come to pass"
        await asyncio.sleep(0.02)


@pytest.fixture(params=["an agent whose disk lacks it", "pods that keep their own"])
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    per_pod, port = "own" in request.param, free_port()
    (tmp_path / "agent").mkdir()
    agent = CacheProgram(tmp_path / "agent", tmp_path / "models", port, {}, ("--node", "n1"))
    if not per_pod:
        await asyncio.to_thread(agent.start)
    try:
        async with Stage(tmp_path / "conductor", port, per_pod=per_pod).running() as stage:
            await until(lambda: per_pod or bool(stage.caches.known()))
            await until(lambda: stage.conductor.table.models[0].eta_s is not None and bool(stage.status.must_fetch))
            yield stage
    finally:
        await asyncio.to_thread(agent.stop)


async def begin(gateway: GatewayProcess, stage: Stage, *options: str) -> None:
    gateway.write_config(msgspec.structs.replace(config(), conductors=(f"http://127.0.0.1:{stage.port}",)))
    await gateway.start(*options)


async def test_who_asks_first_is_told_at_once_that_it_must_be_fetched_and_when_to_come_back(
    stage: Stage, gateway: GatewayProcess
) -> None:
    await begin(gateway, stage, "--hold-timeout", "60")
    status, headers, body = await post_chat(gateway, stream=True)

    assert (status, error_of(body)["code"]) == (503, "model_loading")
    assert MUST_FETCH in error_of(body)["message"]
    assert 60 < int(headers["retry-after"]) <= 90

    await until(lambda: {"cpu": 1} in stage.ray.asked)  # it wakes all the same


async def test_a_wake_that_waits_for_its_pod_says_that_it_must_fetch_and_how_long_that_takes(stage: Stage) -> None:
    async with somebody_waits(stage):
        await until(lambda: stage.status.reason is Reason.POD_PENDING)
        said, row = stage.status, stage.conductor.table.models[0]
    assert said.message.endswith(f"; {MUST_FETCH}, about 80 s")
    assert said.eta_s == pytest.approx(88)
    assert row.message.endswith(MUST_FETCH)


async def test_a_stream_that_waits_for_a_pod_is_refused_and_not_begun_when_the_pod_lacks_its_model(
    stage: Stage, gateway: GatewayProcess
) -> None:
    """Of the pod nothing is known yet when its engine starts, since its cache has said nothing."""
    async with somebody_waits(stage):
        await until(lambda: stage.conductor.table.models[0].reason is Reason.POD_PENDING)
        await begin(gateway, stage, "--hold-timeout", "60", "--waiting-comment-after", "0.2")
        async with raw_connection(gateway.port) as (reader, writer):
            writer.write(raw_request(chat(stream=True), extra="connection: close\r\n"))
            await until(lambda: stage.status.queued > 1)
            stage.ray.there = (pod(1),)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)).lower()
            assert head.startswith(b"http/1.1 503 ")
            assert b"\r\nretry-after: " in head
            assert MUST_FETCH.encode() in await asyncio.wait_for(reader.read(), DEADLINE_S)
        await until(lambda: f"-r1-0 starts on {pod(1).id}; {MUST_FETCH}, about 80 s" in stage.status.message)
    assert [one.app for one in stage.ray.started] == ["search.echo-r1-0"]
