"""Both clients of engines, on the gateway's own event loop, for tests of what they have in common."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop
from tests.builders.gateway import POOL_TOKEN

from cotenant_serving.gateway.upstream import Upstream
from cotenant_serving.gateway.upstream_aiohttp import AiohttpUpstream
from cotenant_serving.gateway.upstream_lean import LeanUpstream

CLIENTS = {"lean": LeanUpstream, "aiohttp": AiohttpUpstream}


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(CLIENTS))
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    client = CLIENTS[request.param](lambda: POOL_TOKEN)
    yield client
    await client.close()


@pytest.fixture
async def lean() -> AsyncIterator[LeanUpstream]:
    """For what the reference does not do, or not as well."""
    client = LeanUpstream(lambda: POOL_TOKEN)
    yield client
    await client.close()
