"""The operator's HTTP API over a socket: who may ask, the long poll, usage, readiness, metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.builders.ports import free_port

from cotenant_operator.operator_server import OperatorApi, serve
from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.usage_ledger import LedgerError
from cotenant_operator.usage_store import UsageStoreError
from cotenant_serving.contract_gateway import GatewayConfig
from cotenant_serving.contract_usage import UsageBatch, UsageReceipt

pytestmark = pytest.mark.integration
TOKEN = "pool-token-of-the-test"


class Stage:
    """The API with everything around it written down."""

    def __init__(self) -> None:
        self.published = PublishedConfig()
        self.problem, self.token = "", TOKEN
        self.usage: list[UsageBatch] = []
        self.refuse: Exception | None = None

    async def add(self, batch: UsageBatch) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.usage.append(batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[aiohttp.ClientSession]:
        api = OperatorApi(
            published=self.published,
            pool_token=lambda: self.token,
            ready=lambda: self.problem,
            metrics=lambda: b"cotenant_operator_leader 1.0\n",
            add_usage=self.add,
        )
        port = free_port()
        task = asyncio.create_task(serve(api, "127.0.0.1", port))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
                await _answering(session)
                yield session
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _answering(session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with session.get("/healthz") as response:
                    assert response.status == 200
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


def config(generation: int) -> bytes:
    return msgspec.json.encode(GatewayConfig(generation=generation))


def batch(**more: Any) -> bytes:
    return msgspec.json.encode(UsageBatch(gateway="one", boot="b", sequence=3, totals=(), **more))


async def asked(session: aiohttp.ClientSession, after: int, wait_s: float) -> tuple[int, int]:
    async with session.get(f"/v1/gateway-config?after={after}&wait_s={wait_s}") as response:
        said = await response.read()
        return response.status, msgspec.json.decode(said, type=GatewayConfig).generation if said else 0


async def test_a_newer_configuration_answers_whoever_waits_for_it_at_once() -> None:
    stage = Stage()
    stage.published.offer(config(5))
    async with stage.running() as session:
        assert await asked(session, 0, 30) == (200, 5)
        waiting = [asyncio.create_task(asked(session, 5, 60)) for _ in range(4)]
        await asyncio.sleep(0.05)
        stage.published.offer(config(6))
        async with asyncio.timeout(20):
            assert await asyncio.gather(*waiting) == [(200, 6)] * 4


async def test_nothing_newer_in_time_is_no_content() -> None:
    stage = Stage()
    stage.published.offer(config(5))
    async with stage.running() as session:
        assert await asked(session, 5, 0.05) == (204, 0)


async def test_an_older_or_damaged_configuration_is_never_handed_out() -> None:
    stage = Stage()
    assert stage.published.offer(config(5))
    assert not stage.published.offer(config(4))
    assert not stage.published.offer(b"{")
    async with stage.running() as session:
        assert await asked(session, 0, 0) == (200, 5)


@pytest.mark.parametrize("token", ["", "another"])
async def test_without_the_pool_token_nothing_is_said(token: str) -> None:
    stage = Stage()
    stage.published.offer(config(5))
    async with stage.running() as session:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get("/v1/gateway-config", headers=headers) as response:
            assert response.status == 401
        async with session.post("/v1/usage", data=batch(), headers=headers) as response:
            assert response.status == 401
    assert stage.usage == []


async def test_while_there_is_no_token_nobody_gets_in_not_even_with_an_empty_one() -> None:
    stage = Stage()
    stage.token = ""
    async with (
        stage.running() as session,
        session.get("/v1/gateway-config", headers={"Authorization": "Bearer "}) as a,
    ):
        assert a.status == 401


async def test_usage_is_acknowledged_when_it_is_kept() -> None:
    stage = Stage()
    async with stage.running() as session, session.post("/v1/usage", data=batch()) as response:
        receipt = msgspec.json.decode(await response.read(), type=UsageReceipt)
    assert (response.status, receipt.sequence, len(stage.usage)) == (200, 3, 1)


@pytest.mark.parametrize(
    ("refuse", "body", "status"),
    [
        (UsageStoreError("later"), batch(), 503),
        (LedgerError("no such day"), batch(), 400),
        (None, b"{}", 400),
        (None, b"\xff", 400),
        (None, b"x" * (9 << 20), 413),
    ],
)
async def test_usage_that_is_not_kept_is_not_acknowledged(refuse: Exception | None, body: bytes, status: int) -> None:
    stage = Stage()
    stage.refuse = refuse
    async with stage.running() as session, session.post("/v1/usage", data=BytesIO(body)) as response:
        assert response.status == status
    assert stage.usage == []


async def test_readiness_says_what_is_missing_and_health_does_not_care() -> None:
    stage = Stage()
    stage.problem = "gpupools: not installed"
    async with stage.running() as session:
        async with session.get("/readyz") as response:
            assert (response.status, "gpupools" in await response.text()) == (503, True)
        async with session.get("/healthz") as response:
            assert response.status == 200
        stage.problem = ""
        async with session.get("/readyz") as response:
            assert response.status == 200


async def test_metrics_are_text_and_unknown_routes_are_404() -> None:
    async with Stage().running() as session:
        async with session.get("/metrics") as response:
            assert response.content_type == "text/plain"
            assert "cotenant_operator_leader" in await response.text()
        async with session.get("/v1/desired") as response:
            assert response.status == 404


async def test_numbers_that_are_none_are_refused() -> None:
    async with Stage().running() as session, session.get("/v1/gateway-config?after=soon") as response:
        assert response.status == 400
