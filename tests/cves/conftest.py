"""One gateway process between a fake conductor and fake engines for each file of these tests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    config,
    eventually,
    model_row,
    tenant,
)
from tests.builders.gateway_answers import answer_any_task
from tests.builders.gateway_calls import with_conductor
from tests.builders.gateway_http import Seen

from cotenant_serving.contract import Task

TASKS: dict[str, Task] = {
    "search/echo": "echo",
    "search/embed": "embed",
    "search/rerank": "rerank",
    "search/classify": "classify",
    "search/tensor": "tensor",
    "ads/echo": "echo",
}
"""`search` sees all but the last, `ads` the last and `search/echo`."""
AUTHORIZED = b"authorization: Bearer " + KEYS["search"].encode()


@dataclass
class Stage:
    gateway: GatewayProcess
    engines: dict[str, FakeEngine]
    markers: int = 0
    """Requests that were refused so that the metrics would show it."""

    @property
    def port(self) -> int:
        return self.gateway.port

    def heard(self) -> list[Seen]:
        """Every request that has reached an engine."""
        return [seen for engine in self.engines.values() for seen in engine.requests]

    def forget(self) -> None:
        for engine in self.engines.values():
            engine.requests.clear()
            engine.usual = answer_any_task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    mine = tuple(name for name in TASKS if name.startswith("search/"))
    value = config(tenant("search", models=mine), tenant("ads", models=("ads/echo", "search/echo")), tasks=TASKS)
    gateway, conductor = GatewayProcess(tmp_path_factory.mktemp("gateway")), FakeConductor()
    engines = {model: FakeEngine(f"i{number}", model=model, slots=64) for number, model in enumerate(TASKS)}
    try:
        for fake in (conductor, *engines.values()):
            await fake.start()
        rows = [engine.row() for engine in engines.values()]
        conductor.publish(*rows, models=tuple(model_row(model=model) for model in TASKS))
        gateway.write_config(with_conductor(value, conductor))
        await gateway.start()
        await eventually((gateway.state / "table.json").exists)
        yield Stage(gateway, engines)
    finally:
        await gateway.stop()
        for fake in (conductor, *engines.values()):
            await fake.stop()


@pytest.fixture
def stage(started: Stage) -> Stage:
    """With nothing remembered of other tests."""
    started.forget()
    return started
