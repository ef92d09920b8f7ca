"""Fixtures of the gateway's tests: a real gateway process between a fake conductor and fake engines."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from tests.builders.gateway import KEYS, FakeConductor, FakeEngine, GatewayProcess


@pytest.fixture
async def conductor() -> AsyncIterator[FakeConductor]:
    async with FakeConductor() as fake:
        yield fake


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest.fixture
async def other() -> AsyncIterator[FakeEngine]:
    async with FakeEngine("i2") as fake:
        yield fake


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(tmp_path)
    yield process
    await process.stop()


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url="http://unset", api_key=KEYS["search"], max_retries=0) as made:
        yield made
