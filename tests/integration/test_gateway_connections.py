"""The caps on connections of a whole gateway process."""

from pathlib import Path

import pytest
from tests.builders.gateway import KEYS, FakeConductor, GatewayProcess, raw_connection
from tests.builders.gateway_calls import error_of, get, request, run

pytestmark = pytest.mark.integration


async def test_over_its_cap_a_gateway_refuses_health_checks_too_and_keeps_what_it_has(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    async with FakeConductor() as conductor:
        try:
            await run(gateway, conductor, options=("--max-connections", "1"))
            async with raw_connection(gateway.port) as (reader, writer):
                writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b" 200 " in await reader.readline()
                status, headers, body = await get(gateway, "/healthz")
                tensors = await get(gateway, "/v2/health/live")
        finally:
            await gateway.stop()

    assert (status, headers["retry-after"], error_of(body)["code"]) == (503, "1", "overloaded")
    assert (tensors[0], "1 connections" in error_of(tensors[2])) == (503, True)


@pytest.mark.parametrize("workers", [1, 2])
async def test_over_its_own_cap_a_tenant_is_told_to_use_what_it_has(tmp_path: Path, workers: int) -> None:
    gateway = GatewayProcess(tmp_path)
    key = {"authorization": f"Bearer {KEYS['search']}"}
    async with FakeConductor() as conductor:
        try:
            await run(gateway, conductor, options=("--max-connections-per-tenant", "1", "--workers", str(workers)))
            async with raw_connection(gateway.port) as (reader, writer):
                writer.write(f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['search']}\r\n\r\n".encode())
                assert b" 200 " in await reader.readline()
                pages = [await get(gateway, "/v1/models", **key) for _ in range(4)]
                engines = [await request(gateway, "POST", "/v1/chat/completions", headers=key) for _ in range(4)]
                others = await get(gateway, "/healthz")
        finally:
            await gateway.stop()

    told = {(status, headers["retry-after"], error_of(body)["code"]) for status, headers, body in pages + engines}
    assert told == {(429, "1", "too_many_connections")}
    assert all(headers["connection"] == "close" for _, headers, _ in pages + engines)
    assert others[0] == 200
