"""The cap on connections of a whole gateway process."""

from pathlib import Path

import pytest
from tests.builders.gateway import FakeConductor, GatewayProcess, raw_connection
from tests.builders.gateway_calls import error_of, get, run

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
