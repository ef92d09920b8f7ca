"""Workers of a gateway, its first process, or all of it are killed under load; every request is counted once."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import orjson
import psutil
import pytest
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    Seen,
    Wire,
    event,
    eventually,
    say_hello,
    stream_end,
)
from tests.builders.gateway_calls import run
from tests.builders.load import Load, chats

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

KILLS = ("worker", "all", "worker", "first process", "worker", "worker")
WORKERS = ("--workers", "2")
RATE_PER_S = 100.0
"""Some ten requests are under way at any time."""
ENOUGH = 40
"""Whole answers between two kills."""
CUT_OFF = ("connect", "reset", "cut_short")
"""What may become of a request when its gateway is killed."""


class Served:
    """What the engine was asked for; its answers are short, so that kills come at every moment of a request."""

    def __init__(self, rng: random.Random) -> None:
        self.ids: Counter[str] = Counter()
        self._rng = rng

    async def answer(self, seen: Seen, wire: Wire) -> None:
        self.ids["-".join(seen.headers["x-request-id"].split("-")[:2])] += 1  # without the number of the attempt
        if not orjson.loads(seen.body).get("stream"):
            await say_hello(seen, wire)
            return
        await wire.stream_head()
        for _ in range(self._rng.randint(1, 4)):
            await wire.chunk(event("word"))
            await asyncio.sleep(self._rng.choice((0, 0.02, 0.08)))
        await wire.chunk(stream_end())
        await wire.end()


async def kill(gateway: GatewayProcess, what: str, rng: random.Random) -> GatewayProcess:
    """Returns the gateway that serves afterwards."""
    if what == "worker":
        await eventually(gateway.workers)
        try:
            rng.choice(gateway.workers()).kill()
        except (psutil.Error, IndexError):
            pass  # the last one is dead, and the next one not there yet
        return gateway
    if what == "all":
        await gateway.stop()
    else:
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
    following = GatewayProcess(gateway.directory)
    await following.start(*WORKERS, "--port", str(gateway.port))
    return following


async def test_every_request_that_an_engine_had_is_counted_once_whatever_is_killed(tmp_path: Path):
    rng = random.Random(1)
    served = Served(rng)
    async with FakeConductor() as conductor, FakeEngine(slots=40) as engine:
        engine.usual = served.answer
        gateway = GatewayProcess(tmp_path)
        await run(gateway, conductor, engine, options=WORKERS)
        load = Load(chats(gateway.url, RATE_PER_S), {"search": KEYS["search"]}, tmp_path)
        try:
            load.start()
            for what in KILLS:
                before = load.succeeded
                await eventually(lambda before=before: load.succeeded > before + ENOUGH)
                await asyncio.sleep(rng.uniform(0, 0.05))
                gateway = await kill(gateway, what, rng)
            await asyncio.to_thread(load.stop)
            await eventually(lambda: served.ids.keys() <= {record["request_id"] for record in gateway.usage()})
        finally:
            await asyncio.to_thread(load.stop)
            await gateway.stop()

    assert load.wrong("ok", *CUT_OFF) == []
    records = gateway.usage()
    assert max(Counter(record["request_id"] for record in records).values()) == 1
    outcomes = {record["request_id"]: record["outcome"] for record in records}
    assert {outcomes[one.request_id] for one in load.records if one.outcome == "ok"} == {"ok"}
    assert set(outcomes.values()) <= {"ok", "gateway_lost", "client_closed"}
    assert "gateway_lost" in outcomes.values()
    assert {record["completion_tokens"] for record in records if record["outcome"] == "ok"} == {2}
