"""A real gateway process before a real engine process: the way of a request, without conductor and Ray."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.builders.engine import RunningEngine
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    GatewayProcess,
    config,
    eventually,
    model_row,
    row,
    tenant,
)
from tests.builders.gateway_calls import with_conductor


@dataclass(frozen=True)
class Gateway:
    """As a client knows it. `model` is what the engine behind it serves."""

    port: int
    model: str
    process: GatewayProcess

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def key(self) -> str:
        return KEYS["search"]

    def headers(self) -> dict[str, str]:
        """New ones each time: tritonclient adds the length of one request's JSON to the dict that it is given."""
        return {"Authorization": f"Bearer {self.key}"}

    def usage_of(self, request_id: str) -> list[dict[str, Any]]:
        """Its usage records, at least one."""

        async def records() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []

            def written() -> bool:
                found[:] = [one for one in self.process.usage() if one["request_id"] == request_id]
                return bool(found)

            await eventually(written)
            return found

        return asyncio.run(records())


@contextmanager
def gateway_before(engine: RunningEngine, folder: Path) -> Iterator[Gateway]:
    """One tenant sees the engine's model. The gateway's side runs in a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway")
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(120)

    folder.mkdir(parents=True, exist_ok=True)
    conductor, process = FakeConductor(), GatewayProcess(folder)
    try:
        run(_start(conductor, process, engine))
        yield Gateway(process.port, engine.args.spec.model, process)
    finally:
        run(process.stop())
        run(conductor.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(conductor: FakeConductor, process: GatewayProcess, engine: RunningEngine) -> None:
    spec, beat = engine.args.spec, engine.beat
    await conductor.start()
    value = config(tenant(models=(spec.model,)), tasks={spec.model: spec.task})
    process.write_config(with_conductor(value, conductor))
    one = row(beat.instance, model=spec.model, port=beat.port, slots=beat.slots, host=beat.host)
    conductor.publish(one, models=(model_row(model=spec.model),))
    await process.start()
    await eventually((process.state / "table.json").exists)
