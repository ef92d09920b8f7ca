"""Several conductors: both RayClusters of a pool that rolls, and several pools, come and go under a steady load."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    config,
    eventually,
    model_row,
    refuse,
)
from tests.builders.gateway_calls import post_chat
from tests.builders.load import Load, chats

pytestmark = pytest.mark.integration
RATE_PER_S = 40.0


@pytest.fixture
async def second() -> AsyncIterator[FakeConductor]:
    async with FakeConductor() as fake:
        yield fake


def publish(conductor: FakeConductor, *engines: FakeEngine, gone: tuple[str, ...] = ()) -> None:
    conductor.publish(*(one.row() for one in engines), models=(model_row(),), gone=gone)


class Pool:
    """What the gateway's configuration names, and what its engines were asked since the last look."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._generation = 0

    def name(self, *conductors: FakeConductor) -> None:
        self._generation += 1
        value = config(generation=self._generation)
        self._gateway.write_config(msgspec.structs.replace(value, conductors=tuple(one.url for one in conductors)))


async def asked(*engines: FakeEngine, times: int = 10) -> None:
    """Waits until each has got so many more requests."""
    before = {one.instance: len(one.requests) for one in engines}
    await eventually(lambda: all(len(one.requests) >= before[one.instance] + times for one in engines))


async def test_conductors_that_are_added_removed_and_flap_cost_no_request(
    gateway, conductor, second, engine, other, tmp_path: Path
):
    engine.slots = other.slots = 50
    pool = Pool(gateway)
    publish(conductor, engine)
    publish(second, other)
    pool.name(conductor)
    await gateway.start("--workers", "2")
    await eventually((gateway.state / "table.json").exists)
    load = Load(chats(gateway.url, RATE_PER_S), {"search": KEYS["search"]}, tmp_path)
    try:
        load.start()
        await asked(engine)
        assert not other.requests

        pool.name(conductor, second)  # a pool rolls: both serve the model
        await asked(engine, other)

        pool.name(second)  # the old one is taken out of the list, and its engine serves what it has
        await asked(other)
        engine.usual = refuse(503, "draining")
        await eventually(lambda: engine.running == 0)
        await asked(other, times=40)
        await engine.stop()
        silent_since = len(engine.requests)
        await asked(other, times=40)

        engine.instance, engine.usual = "i3", FakeEngine().usual  # a new one at the same address
        await engine.start()
        publish(conductor, engine, gone=("i1",))
        for _ in range(6):
            pool.name(conductor, second)
            await asyncio.sleep(0.3)
            pool.name(second)
            await asyncio.sleep(0.3)
        pool.name(conductor, second)
        await asked(engine, other)

        await second.stop()  # a conductor that is away takes no warm model with it
        await asked(engine, other)
    finally:
        await asyncio.to_thread(load.stop)

    assert load.wrong("ok") == []
    assert len(load.records) > 200
    assert silent_since < len(engine.requests)


async def test_engines_of_a_removed_conductor_serve_on_and_are_left_when_they_do_not_answer(
    gateway, conductor, second, engine, other
):
    pool = Pool(gateway)
    publish(conductor, engine)
    publish(second)
    pool.name(conductor, second)
    await gateway.start()
    await eventually((gateway.state / "table.json").exists)
    assert (await post_chat(gateway))[0] == 200

    pool.name(second)
    await eventually(lambda: "generation 2" in "".join(gateway.log))
    for _ in range(3):
        assert (await post_chat(gateway))[0] == 200
    await engine.stop()
    publish(second, other)

    for _ in range(3):
        assert (await post_chat(gateway))[0] == 200
    assert len(engine.requests) == 4
    assert len(other.requests) == 3
