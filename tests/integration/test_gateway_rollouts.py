"""Gateways are replaced one after the other while clients keep their connections and send without pause."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.builders.gateway import KEYS, GatewayProcess, config, model_row
from tests.builders.gateway_calls import until_ready, with_conductor
from tests.builders.load import Load, chats
from tests.builders.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
LAG_S = 1.0
"""Between a gateway's end of readiness and the last new connection that is sent to it."""
SWEPT_S = 2.0
"""From then on: the gateway has told its clients to go."""


async def test_three_rollouts_of_two_gateways_cost_no_request_and_cut_no_stream(conductor, engine, tmp_path: Path):
    engine.slots = 100
    conductor.publish(engine.row(), models=(model_row(),))
    started: list[GatewayProcess] = []

    async def begin(service: Service) -> GatewayProcess:
        folder = tmp_path / f"gateway-{len(started)}"
        folder.mkdir()
        gateway = GatewayProcess(folder)
        started.append(gateway)
        gateway.write_config(with_conductor(config(), conductor))
        await gateway.start("--pre-stop-s", "600")
        await until_ready(gateway, within_s=60)
        service.endpoints.append(gateway.port)
        return gateway

    async def end(gateway: GatewayProcess, service: Service) -> None:
        gateway.signal(signal.SIGTERM)
        await until_ready(gateway, ready=False, within_s=60)
        await asyncio.sleep(LAG_S)
        service.endpoints.remove(gateway.port)
        await asyncio.sleep(SWEPT_S)
        gateway.signal(signal.SIGTERM)  # not a clock of the gateway's: nothing new can come
        assert await gateway.exited(60) == 0

    async with Service() as service:
        running = [await begin(service), await begin(service)]
        load = Load(chats(service.url, 40.0), {"search": KEYS["search"]}, tmp_path)
        try:
            load.start()
            for _ in range(3):
                for old in tuple(running):
                    running.append(await begin(service))
                    await end(old, service)
                    running.remove(old)
        finally:
            await asyncio.to_thread(load.stop)
            for gateway in started:
                await gateway.stop()

    assert load.wrong("ok") == []
    counted = [record["request_id"] for gateway in started for record in gateway.usage()]
    assert len(counted) == len(set(counted)) == len(load.records)
    assert sum(bool(gateway.usage()) for gateway in started) >= 4, "connections have moved on"
