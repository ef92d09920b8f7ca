"""Thousands of broken and hostile byte streams: refused or closed, and no engine gets what no client sent."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.builders.gateway import KEYS, FakeEngine, GatewayProcess, eventually
from tests.builders.gateway_calls import post_chat
from tests.builders.gateway_stage import gateway_with_engines
from tests.builders.gateway_watch import Watch
from tests.builders.raw_cases import raw_case
from tests.builders.raw_client import faults, forwardable, send, smuggled
from tests.builders.strict_http import read_requests

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

CASES = 20_000
WARM_UP = 300
AT_ONCE = 32
SEED = 1

Stage = tuple[GatewayProcess, dict[str, FakeEngine]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with gateway_with_engines(tmp_path_factory.mktemp("gateway")) as found:
        yield found


async def run_cases(gateway: GatewayProcess, seeds: range) -> tuple[list[str], list[tuple[str, bytes]]]:
    """(what went wrong, what may have reached an engine)"""
    wrong: list[str] = []
    allowed: list[tuple[str, bytes]] = []
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> None:
        async with turns:
            case = raw_case(seed)
            stream = read_requests(case.data)
            allowed.extend(forwardable(stream))
            found = faults(case, stream, await send(case, stream, gateway.port))
            wrong.extend(f"raw_case({seed}), {case.name}: {fault}" for fault in found)

    await asyncio.gather(*(one(seed) for seed in seeds))
    return wrong, allowed


async def test_no_bytes_break_the_gateway_or_reach_an_engine_that_no_client_sent_whole(stage, full_size):
    gateway, engines = stage
    await run_cases(gateway, range(SEED - WARM_UP, SEED))
    await eventually(lambda: not any(engine.running for engine in engines.values()))
    for engine in engines.values():
        engine.requests.clear()
    watch = await Watch.begin(gateway)

    wrong, allowed = await run_cases(gateway, range(SEED, SEED + full_size(CASES)))

    assert not wrong, f"{len(wrong)} faults, the first: " + "\n".join(wrong[:10])
    assert (await post_chat(gateway))[0] == 200
    await watch.check_at_rest()
    seen = [request for engine in engines.values() for request in engine.requests if b"mark" in request.body]
    assert seen
    assert not smuggled(seen, allowed)
    watch.check_log(KEYS["search"], "mark")
