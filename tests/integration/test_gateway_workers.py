"""Several workers on one port: limits and counts over all of them, and what is left when one is killed."""

import asyncio
import os
import signal
import time
from collections import Counter

import aiohttp
import orjson
import psutil
import pytest
from tests.builders.gateway import (
    KEYS,
    GatewayProcess,
    Seen,
    Wire,
    chat,
    config,
    event,
    eventually,
    stream_end,
    tenant,
)
from tests.builders.gateway_calls import gate, get, post_chat, run

from cotenant_serving.gateway.scrape import FRESH_S

pytestmark = pytest.mark.integration


def metric(text: bytes, name: str) -> float:
    """The sum of a metric's samples."""
    found = [line for line in text.decode().splitlines() if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in found)


async def metrics(gateway: GatewayProcess) -> bytes:
    """As they are now: a worker's last rendering is out of use by then."""
    await asyncio.sleep(FRESH_S)
    return (await get(gateway, "/metrics"))[2]


async def burst(gateway: GatewayProcess, count: int, **fields: object) -> list[int]:
    """Statuses of requests that are sent at the same time, each over a connection of its own."""
    return [status for status, _, _ in await asyncio.gather(*(post_chat(gateway, **fields) for _ in range(count)))]


async def all_serve(gateway: GatewayProcess, workers: int, restarts: int = 0) -> None:
    """Waits until so many workers serve, after so many restarts in all."""
    async with asyncio.timeout(30):
        while True:
            text = (await get(gateway, "/metrics"))[2]
            found = [metric(text, f"cotenant_gateway_{name}") for name in ("workers", "worker_restarts_total")]
            if found == [workers, restarts]:
                return
            await asyncio.sleep(0.05)


async def test_four_workers_admit_exactly_what_the_limits_say_and_answer_for_each_other(gateway, conductor, engine):
    ads = tenant("ads", models=("search/echo",), concurrent_requests=5)
    value = config(tenant("search", requests_per_minute=60), ads)
    opened = asyncio.Event()
    engine.slots = 100

    async def held(seen: Seen, wire: Wire) -> None:
        await opened.wait()
        await wire.answer(200, b"{}")

    await run(gateway, conductor, engine, value=value, options=("--workers", "4"))
    await all_serve(gateway, 4)

    began_s = time.monotonic()
    statuses = Counter(await burst(gateway, 90))
    took_s = time.monotonic() - began_s

    # A bucket of 60 that got one back for each second that the burst took.
    assert statuses.keys() == {200, 429}
    assert 60 <= statuses[200] <= 60 + took_s + 1
    text = await metrics(gateway)
    assert metric(text, "cotenant_requests_total") == statuses[200] == len(gateway.settled())
    assert metric(text, "cotenant_rejections_total") == statuses[429]
    assert metric(text, "cotenant_request_duration_seconds_count") == statuses[200]
    processes = [psutil.Process(gateway.pid), *gateway.workers()]
    resident = sum(process.memory_info().rss for process in processes)
    assert metric(text, "cotenant_gateway_resident_memory_bytes") == pytest.approx(resident, rel=0.2)

    engine.usual, engine.most_running = held, 0
    many = [asyncio.create_task(post_chat(gateway, KEYS["ads"])) for _ in range(30)]
    await eventually(lambda: (sum(task.done() for task in many), engine.running) == (25, 5))
    assert metric(await metrics(gateway), "cotenant_requests_in_flight") == 5
    opened.set()
    assert Counter(status for status, _, _ in await asyncio.gather(*many)) == {200: 5, 429: 25}
    assert engine.most_running == 5
    assert (await post_chat(gateway, KEYS["ads"]))[0] == 200
    await eventually(lambda: len(gateway.usage()) >= statuses[200] + 6)
    assert len({record["request_id"] for record in gateway.usage()}) == len(gateway.usage()) == statuses[200] + 6


async def test_an_engine_gets_its_slots_full_and_no_more_whichever_workers_have_the_requests(
    gateway, conductor, engine
):
    engine.slots = 1
    opened, held = gate()
    engine.scripts.append(held)
    await run(gateway, conductor, engine, options=("--workers", "2"))
    await all_serve(gateway, 2)
    tasks = [asyncio.create_task(post_chat(gateway)) for _ in range(40)]
    await eventually(lambda: sum(latest.get("search/echo", 0) for latest in waiting(conductor).values()) == 39)
    assert metric(await metrics(gateway), "cotenant_queue_depth") == 39

    opened.set()

    assert Counter(status for status, _, _ in await asyncio.gather(*tasks)) == {200: 40}
    assert engine.most_running == 1
    text = await metrics(gateway)
    assert metric(text, "cotenant_upstream_retries_total") == 0, "nobody asked an engine that had no room"
    assert metric(text, "cotenant_queue_depth") == metric(text, "cotenant_requests_in_flight") == 0
    names = sorted(waiting(conductor))
    assert [name.rpartition("-")[2] for name in names] == ["0", "1"]


def waiting(conductor) -> dict[str, dict[str, int]]:
    """Gateway → model → waiting requests, as each has reported last."""
    return {
        demand.gateway: {model: one.queued for model, one in demand.models.items()} for demand in conductor.demands
    }


class Streams:
    """Streamed requests of one engine that go on until `finish` is set; `began` counts those at the engine."""

    def __init__(self, engine) -> None:
        self.finish = asyncio.Event()
        self.began: list[str] = []
        engine.usual = self._script

    async def _script(self, seen: Seen, wire: Wire) -> None:
        self.began.append(seen.headers["x-request-id"])
        await wire.stream_head()
        await wire.chunk(event("one") + event("two"))
        await self.finish.wait()
        await wire.chunk(stream_end(completion=2))
        await wire.end()


async def read_stream(session: aiohttp.ClientSession, gateway: GatewayProcess) -> str:
    """`done`, `broken`, or the status of a refusal."""
    headers = {"authorization": f"Bearer {KEYS['search']}"}
    try:
        async with session.post(
            gateway.url + "/v1/chat/completions", data=chat(stream=True), headers=headers
        ) as response:
            body = await response.read()
            if response.status != 200:
                return str(response.status)
            return "done" if body.endswith(b"data: [DONE]\n\n") else "broken"
    except aiohttp.ClientError:
        return "broken"


def clients_of(worker: psutil.Process, port: int) -> int:
    """Connections to the gateway's port that this worker holds."""
    open_ones = (one for one in worker.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED)
    return sum(one.laddr.port == port for one in open_ones)


async def test_a_killed_worker_takes_its_own_requests_with_it_and_nothing_else(gateway, conductor, engine):
    engine.slots = 100
    streams = Streams(engine)
    value = config(tenant(concurrent_requests=12, requests_per_minute=30))
    await run(gateway, conductor, engine, value=value, options=("--workers", "2"))
    await all_serve(gateway, 2)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        tasks = [asyncio.create_task(read_stream(session, gateway)) for _ in range(12)]
        await eventually(lambda: len(streams.began) == 12)
        assert await read_stream(session, gateway) == "429"

        workers = gateway.workers()
        await eventually(lambda: sum(clients_of(worker, gateway.port) for worker in workers) == 12)
        victim = workers[0]
        broken = clients_of(victim, gateway.port)
        assert 0 < broken < 12
        victim.kill()

        await eventually(lambda: sum(task.done() for task in tasks) >= broken)
        await all_serve(gateway, 2, restarts=1)
        again = [asyncio.create_task(read_stream(session, gateway)) for _ in range(broken)]
        await eventually(lambda: len(streams.began) == 12 + broken)
        assert await read_stream(session, gateway) == "429", "exactly those that broke had made room"
        streams.finish.set()
        ended = Counter(await asyncio.gather(*tasks, *again))

    assert ended == {"broken": broken, "done": 12}
    await eventually(lambda: len(gateway.usage()) == 12 + broken)
    outcomes = Counter(record["outcome"] for record in gateway.usage())
    assert outcomes == {"gateway_lost": broken, "ok": 12}
    assert sorted(record["request_id"] for record in gateway.usage()) == sorted(streams.began)
    lost = [record for record in gateway.usage() if record["outcome"] == "gateway_lost"]
    assert {(one["estimated"], one["completion_tokens"], one["status"]) for one in lost} == {(True, 2, 200)}
    text = await metrics(gateway)
    assert metric(text, "cotenant_gateway_worker_restarts_total") == 1
    assert metric(text, "cotenant_usage_records_recovered_total") == broken
    assert metric(text, "cotenant_rejections_total") == 2, "counts of the dead worker are still there"
    assert victim.pid not in [worker.pid for worker in gateway.workers()]
    await eventually(lambda: list(waiting(conductor).values()) == [{}, {}])  # also what the dead one had reported
    _, headers, _ = await post_chat(gateway)
    assert int(headers["x-ratelimit-remaining-requests"]) < 30 - 12, "a full bucket would be a new one"


async def test_requests_of_a_gateway_that_was_killed_whole_are_counted_at_its_next_start(gateway, conductor, engine):
    engine.slots = 100
    streams = Streams(engine)
    await run(gateway, conductor, engine, options=("--workers", "2"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(read_stream(session, gateway)) for _ in range(10)]
        await eventually(lambda: len(streams.began) == 10)
        await gateway.stop()
        assert set(await asyncio.gather(*tasks)) == {"broken"}
    with (gateway.state / "usage.jsonl").open("ab") as file:
        file.write(b'{"time":17')  # what a kill within a write may leave

    await gateway.start("--workers", "2")

    lines = (gateway.state / "usage.jsonl").read_bytes().splitlines()
    assert lines[0] == b'{"time":17'
    records = gateway.usage()
    assert {record["outcome"] for record in records} == {"gateway_lost"}
    assert sorted(record["request_id"] for record in records) == sorted(streams.began)


async def test_sigterm_drains_all_workers(gateway, conductor, engine):
    engine.slots = 100
    streams = Streams(engine)
    await run(gateway, conductor, engine, options=("--workers", "3"))
    await all_serve(gateway, 3)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(read_stream(session, gateway)) for _ in range(10)]
        await eventually(lambda: len(streams.began) == 10)
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: sum("draining" in line for line in gateway.log) == 3)
        streams.finish.set()
        assert set(await asyncio.gather(*tasks)) == {"done"}

    assert await gateway.exited() == 0
    assert {record["outcome"] for record in gateway.usage()} == {"ok"}
    assert list((gateway.state / "journals").iterdir()) == []
    assert sum("listening on" in line for line in gateway.log) == 1


async def test_workers_of_a_killed_supervisor_finish_their_requests_and_leave_the_port_to_the_next(
    gateway, conductor, engine, tmp_path
):
    streams = Streams(engine)
    await run(gateway, conductor, engine)
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(read_stream(session, gateway))
        await eventually(lambda: streams.began)
        (worker,) = gateway.workers()

        gateway.signal(signal.SIGKILL)
        following = GatewayProcess(tmp_path)
        await following.start("--port", str(gateway.port))
        try:
            assert following.port == gateway.port
            assert not running.done()
            assert following.usage() == [], "its request is not lost: its worker lives"
            streams.finish.set()
            assert await running == "done"
            await asyncio.to_thread(psutil.wait_procs, [worker], 30)
            assert not worker.is_running()
            assert (await post_chat(following))[0] == 200
            await eventually(lambda: len(gateway.usage()) == 2)
        finally:
            await following.stop()
    assert [record["outcome"] for record in gateway.usage()] == ["ok", "ok"]


async def test_a_full_disk_stops_no_request_and_loses_no_record_even_if_the_worker_is_killed(
    gateway, conductor, engine
):
    await run(gateway, conductor, engine)
    (worker,) = gateway.workers()
    worker.rlimit(psutil.RLIMIT_FSIZE, (0, 1 << 40))

    statuses = await burst(gateway, 3)

    assert statuses == [200] * 3
    assert gateway.usage() == []
    assert metric(await metrics(gateway), "cotenant_usage_records_waiting") == 3
    worker.kill()
    await eventually(lambda: len(gateway.usage()) == 3)
    assert {(record["outcome"], record["completion_tokens"]) for record in gateway.usage()} == {("ok", 2)}
    await all_serve(gateway, 1, restarts=1)
    assert metric(await metrics(gateway), "cotenant_usage_records_waiting") == 0


async def test_a_second_gateway_on_the_same_state_is_refused(gateway, conductor, tmp_path):
    await run(gateway, conductor)
    second = GatewayProcess(tmp_path)
    with pytest.raises(RuntimeError, match="another gateway runs on this state directory"):
        await second.start()
    assert await second.exited() == 1


async def test_a_state_directory_that_cannot_be_used_ends_the_gateway(gateway):
    gateway.state.mkdir()
    (gateway.state / "usage.jsonl").mkdir()
    with pytest.raises(RuntimeError, match=r"gateway cannot start on .*usage.jsonl"):
        await gateway.start("--workers", "2")
    assert await gateway.exited() == 1


async def test_workers_that_cannot_start_end_the_gateway(gateway, tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ImportError('broken installation')")
    gateway.environment["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    with pytest.raises(RuntimeError, match="broken installation"):
        await gateway.start("--workers", "2")
    assert "its workers end before they serve" in "".join(gateway.log)
    assert await gateway.exited() == 1


async def test_a_failed_request_leaves_a_line_that_names_it(gateway, conductor, engine):
    async def broken(_: Seen, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event("one"))
        wire.reset()

    engine.usual = broken
    await run(gateway, conductor, engine)
    _, headers, _ = await post_chat(gateway, stream=True)
    assert (await post_chat(gateway, model="nobody"))[0] == 404

    lines = [orjson.loads(line) for line in gateway.log if line.startswith("{")]
    (failed,) = [line for line in lines if line.get("event") == "request_failed"]
    assert failed["request_id"] == headers["x-request-id"]
    assert (failed["tenant"], failed["model"], failed["outcome"], failed["status"]) == (
        "search",
        "search/echo",
        "upstream_error",
        200,
    )
    assert failed["duration_s"] >= 0
