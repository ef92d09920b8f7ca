"""Usage of a gateway in the operator's ledger: once, whoever is away or killed, and all of it when a gateway ends."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator

import pytest
from tests.builders.fake_operator import FakeOperator
from tests.builders.gateway import FakeConductor, FakeEngine, GatewayProcess, eventually
from tests.builders.gateway_calls import get, post_chat, run

pytestmark = pytest.mark.integration
OK = ("search", "ok")


@pytest.fixture
async def operator() -> AsyncIterator[FakeOperator]:
    async with FakeOperator() as fake:
        yield fake


async def served(gateway: GatewayProcess, count: int) -> None:
    found = await asyncio.gather(*(post_chat(gateway) for _ in range(count)))
    assert {code for code, _, _ in found} == {200}


async def begin(
    gateway: GatewayProcess, operator: FakeOperator, conductor: FakeConductor, engine: FakeEngine
) -> None:
    engine.slots = 20
    options = (*operator.options(gateway), "--name", "gateway-a", "--workers", "2")
    await run(gateway, conductor, engine, options=options)


async def test_an_ending_gateway_brings_out_the_usage_of_its_last_request(gateway, operator, conductor, engine):
    await begin(gateway, operator, conductor, engine)
    await served(gateway, 10)

    gateway.signal(signal.SIGTERM)

    assert await gateway.exited() == 0
    assert operator.requests() == {OK: 10}
    assert {one.gateway for one in operator.batches} == {"gateway-a"}
    assert sum(total.prompt_tokens for one in operator.ledger().values() for total in one.totals) == 30


async def test_what_an_operator_did_not_acknowledge_is_sent_again_and_counted_once(
    gateway, operator, conductor, engine
):
    operator.lose_receipts = True
    await begin(gateway, operator, conductor, engine)
    await served(gateway, 3)
    await eventually(lambda: len(operator.batches) > 1)
    await served(gateway, 4)
    operator.lose_receipts = False
    gateway.signal(signal.SIGTERM)
    assert await gateway.exited() == 0

    assert operator.requests() == {OK: 7}
    assert len(operator.ledger()) < len(operator.batches)


async def test_a_gateway_that_was_killed_whole_sends_the_rest_at_its_next_start(gateway, operator, conductor, engine):
    operator.usage_status = 503
    await begin(gateway, operator, conductor, engine)
    await served(gateway, 5)
    await eventually(lambda: "does not answer (usage)" in "".join(gateway.log))
    await gateway.stop()
    operator.usage_status = 200

    again = GatewayProcess(gateway.directory)
    try:
        await again.start(*operator.options(gateway), "--name", "gateway-a")
        await eventually(lambda: operator.requests()[OK] >= 5)
        again.signal(signal.SIGTERM)
        assert await again.exited() == 0
    finally:
        await again.stop()
    assert operator.requests() == {OK: 5}
    assert len({one.boot for one in operator.batches}) == 1


async def test_an_operator_that_is_away_holds_up_no_request_and_no_end_for_long(gateway, operator, conductor, engine):
    await begin(gateway, operator, conductor, engine)
    await operator.stop()
    await served(gateway, 5)
    async with asyncio.timeout(30):
        while not re.search(rb"\ncotenant_usage_unsent_bytes [1-9]", (await get(gateway, "/metrics"))[2]):
            await asyncio.sleep(0.2)
    assert b"\ncotenant_gateway_config_generation 1.0" in (await get(gateway, "/metrics"))[2]
    gateway.signal(signal.SIGTERM)
    assert await gateway.exited(within_s=60) == 0
    said = "".join(gateway.log)
    assert "bytes of usage are not sent" in said
    assert "pool-token-of-the-tests" not in said
