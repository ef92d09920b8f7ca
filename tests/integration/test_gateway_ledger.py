"""Gateways before the operator's real HTTP API: what they are told, and the report of what they have sent."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.builders.config_maps import ConfigMaps
from tests.builders.gateway import KEYS, POOL_TOKEN, GatewayProcess, config, eventually, model_row, tenant
from tests.builders.gateway_calls import get, post_chat, until_ready, with_conductor

from cotenant_operator.operator_server import OperatorApi
from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.usage_ledger import usage_of
from cotenant_operator.usage_store import UsageStore
from cotenant_serving.inner_api import server_of

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def replica(ledger: ConfigMaps, published: PublishedConfig) -> AsyncIterator[str]:
    """One operator's HTTP API. Yields its URL."""
    api = OperatorApi(
        published=published,
        pool_token=lambda: POOL_TOKEN,
        ready=lambda: "",
        metrics=lambda: b"",
        add_usage=UsageStore(ledger, "cotenant-system").add,
    )
    server = server_of(api, "127.0.0.1", 0, graceful_s=1)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_several_gateways_follow_and_several_operators_keep_one_ledger(conductor, engine, tmp_path: Path):
    engine.slots = 50
    conductor.publish(engine.row(), models=(model_row(),))
    ledger, published = ConfigMaps(), PublishedConfig()
    gateways = []
    async with (
        replica(ledger, published) as one,
        replica(ledger, published) as another,
    ):
        try:
            for name, url in (("gateway-a", one), ("gateway-b", another), ("gateway-c", one)):
                (tmp_path / name).mkdir()
                gateway = GatewayProcess(tmp_path / name)
                token = str(gateway.directory / "pool-token")
                await gateway.start("--operator", url, "--pool-token-file", token, "--name", name)
                assert (await get(gateway, "/readyz"))[0] == 503, "nothing is published yet"
                gateways.append(gateway)
            ads = tenant("ads")
            value = with_conductor(config(tenant(), ads, gateways=3), conductor)
            published.offer(msgspec.json.encode(value))
            for gateway in gateways:
                await until_ready(gateway)
            for key, count in ((KEYS["search"], 5), (KEYS["ads"], 3)):
                calls = [post_chat(gateway, key) for gateway in gateways for _ in range(count)]
                assert {code for code, _, _ in await asyncio.gather(*calls)} == {200}
            for gateway in gateways:
                gateway.signal(signal.SIGTERM)
            assert [await gateway.exited() for gateway in gateways] == [0, 0, 0]
        finally:
            for gateway in gateways:
                await gateway.stop()

    usage = usage_of((item["data"] for item in ledger.maps.values()), ("tenant",), None)
    assert {group: found.requests for group, found in usage.groups.items()} == {("search",): 15, ("ads",): 9}
    assert usage.total.prompt_tokens == 3 * 24
    assert usage.damaged == 0
