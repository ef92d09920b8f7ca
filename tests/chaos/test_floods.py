"""One tenant floods one model of a real gateway with two workers: what do the others on that model get?

The engine is a fake that holds a slot for a fixed time per token and burns no CPU, so what is measured is waiting.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    Seen,
    Wire,
    config,
    digest,
    tenant,
)
from tests.builders.gateway_calls import run
from tests.builders.load import Load, scenario

from cotenant_loadtests.server_timing import timing_phases
from cotenant_serving.contract import HEADER_USAGE, GatewayTenant

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

STEADY, GREEDY, LIGHT = "search", "ads", "mail"
ALL_KEYS = {**KEYS, LIGHT: "key-of-mail-0f1e2d3c4b5a6978"}
FLOODED = "search/echo"
TOKEN_S = 0.01
WORKERS = ("--workers", "2")


class Slots:
    """An engine's script that takes TOKEN_S for each token. `spans`: request → (began, ended), Unix seconds."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[float, float]] = {}

    async def serve(self, seen: Seen, wire: Wire) -> None:
        body = orjson.loads(seen.body)
        tokens, began = body["max_tokens"], time.time()
        try:
            await asyncio.wait_for(seen.disconnected.wait(), tokens * TOKEN_S)
        except TimeoutError:
            await answer(wire, body["model"], tokens)
        self.spans[seen.headers["x-request-id"]] = began, time.time()

    def tokens_per_tenant(self, tenants: dict[str, str], since: float, until: float) -> Counter[str]:
        """Of those that ran meanwhile. `tenants`: by request."""
        found: Counter[str] = Counter()
        for request, (began, ended) in self.spans.items():
            if request in tenants:
                found[tenants[request]] += max(0, round((min(ended, until) - max(began, since)) / TOKEN_S))
        return found


async def answer(wire: Wire, model: str, tokens: int) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word"}}
    usage = {"prompt_tokens": 1, "completion_tokens": tokens}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    body = orjson.dumps({**whole, "usage": {**usage, "total_tokens": tokens + 1}})
    await wire.answer(200, body, {HEADER_USAGE: orjson.dumps(usage).decode()})


def stream(name: str, tenant: str, model: str, rate_per_s: float, tokens: int | tuple[int, int], **fields: Any):
    output = tokens if isinstance(tokens, int) else {"distribution": "uniform", "min": tokens[0], "max": tokens[1]}
    return {
        "name": name,
        "tenant": tenant,
        "model": model,
        "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
        "prompt": {"tokens": 3},
        "output": {"tokens": output},
        "streamed": False,
        **fields,
    }


async def measure(load: Load, gateway: GatewayProcess, duration_s: float) -> None:
    """Ends the gateway with the flood still waiting: nobody gives up in the middle of an answer."""
    try:
        load.start()
        async with asyncio.timeout(60):
            while not load.succeeded:
                await asyncio.sleep(0.1)
        await asyncio.sleep(duration_s)
    finally:
        await gateway.stop()
        await asyncio.to_thread(load.stop)


async def test_a_flood_a_steady_backlog_and_an_occasional_request_each_get_their_turns(
    tmp_path: Path, full_size: Callable[[int], int]
):
    warm_up_s, window_s = 3.0, max(24.0, full_size(50))
    slots = Slots()
    async with FakeConductor() as conductor, FakeEngine(slots=2) as engine:
        engine.usual = slots.serve
        gateway = GatewayProcess(tmp_path)
        light_tenant = GatewayTenant(name=LIGHT, key_sha256=(digest(ALL_KEYS[LIGHT]),), models=(FLOODED,))
        tenants = [tenant(name, models=(FLOODED,)) for name in (STEADY, GREEDY)]
        await run(gateway, conductor, engine, value=config(*tenants, light_tenant), options=WORKERS)
        plan = scenario(
            gateway.url,
            # Two slots make 200 tokens a second, so each of the two gets about 2.5 answers.
            stream("steady", STEADY, FLOODED, 6, (30, 50)),
            stream("greedy", GREEDY, FLOODED, 250, (30, 50)),
            stream("light", LIGHT, FLOODED, 0.7, 20),
            duration_s=600,
        )
        load = Load(plan, ALL_KEYS, tmp_path)
        began = time.time()
        await measure(load, gateway, warm_up_s + window_s)

    tenant_of = {record["request_id"]: record["tenant"] for record in gateway.usage()}
    names = [load.planned[one.id].tenant for one in load.records]
    first = began + min(one.sent_us for one in load.records) / 1e6
    served = slots.tokens_per_tenant(tenant_of, first + warm_up_s, first + warm_up_s + window_s)
    assert 0.9 < served[GREEDY] / served[STEADY] < 1.1, served
    codes = Counter(one.status for one, name in zip(load.records, names, strict=True) if name == GREEDY)
    assert codes[429] > 0.5 * sum(codes.values()), codes
    light = [one for one, name in zip(load.records, names, strict=True) if name == LIGHT and one.status]
    assert len(light) > 5
    assert {one.status for one in light} == {200}
    queued_ms = [dict(timing_phases(one.server_timing)).get("queue", 0.0) for one in light]
    assert max(queued_ms) < 3000, "a turn of the two others is a second, the flood's line is a minute and a half"
