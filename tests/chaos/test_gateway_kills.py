"""Workers of a gateway, its first process, or all of it are killed under load; every request is counted once."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import aiohttp
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
    chat,
    event,
    eventually,
    say_hello,
    stream_end,
)
from tests.builders.gateway_calls import run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

KILLS = ("worker", "all", "worker", "first process", "worker", "worker")
CLIENTS = 10
WORKERS = ("--workers", "2")
ENOUGH = 40
"""Whole answers between two kills."""


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
            await asyncio.sleep(self._rng.choice((0, 0, 0.01)))
        await wire.chunk(stream_end())
        await wire.end()


class Clients:
    """They ask again and again; `done` are the ids of whole answers, `wrong` is what must not be."""

    def __init__(self, port: int) -> None:
        self.done: list[str] = []
        self.wrong: list[object] = []
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._stop = False
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(CLIENTS)]

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEYS['search']}"}) as session:
            while not self._stop:
                try:
                    await self._ask_once(session, stream=bool(len(self.done) % 2))
                except (aiohttp.ClientError, OSError):  # its gateway was killed
                    await asyncio.sleep(0.02)

    async def _ask_once(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        async with session.post(self._url, data=chat(stream=stream)) as response:
            body = await response.read()
            if response.status == 200 and body.endswith(b"data: [DONE]\n\n" if stream else b"}"):
                self.done.append(response.headers["x-request-id"])
            else:
                self.wrong.append((response.status, body))


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
    async with FakeConductor() as conductor, FakeEngine(slots=12) as engine:
        engine.usual = served.answer
        gateway = GatewayProcess(tmp_path)
        await run(gateway, conductor, engine, options=WORKERS)
        clients = Clients(gateway.port)
        try:
            for what in KILLS:
                before = len(clients.done)
                await eventually(lambda before=before: len(clients.done) > before + ENOUGH)
                await asyncio.sleep(rng.uniform(0, 0.05))
                gateway = await kill(gateway, what, rng)
            await clients.stop()
            await eventually(lambda: served.ids.keys() <= {record["request_id"] for record in gateway.usage()})
        finally:
            await clients.stop()
            await gateway.stop()

    assert clients.wrong == []
    records = gateway.usage()
    assert max(Counter(record["request_id"] for record in records).values()) == 1
    outcomes = {record["request_id"]: record["outcome"] for record in records}
    assert {outcomes[one] for one in clients.done} == {"ok"}
    assert set(outcomes.values()) <= {"ok", "gateway_lost", "client_closed"}
    assert "gateway_lost" in outcomes.values()
    assert {record["completion_tokens"] for record in records if record["outcome"] == "ok"} == {2}
