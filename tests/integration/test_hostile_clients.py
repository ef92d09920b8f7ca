"""Clients that leave, read nothing, send slowly or only stay: all others are served, and nothing is kept of them."""

import asyncio
import contextlib
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest
import pytest_asyncio
from tests.builders.gateway import (
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    Seen,
    Wire,
    chat,
    event,
    eventually,
    raw_connection,
    raw_request,
)
from tests.builders.gateway_calls import post_chat, run
from tests.builders.gateway_watch import Watch, connections, resident_bytes
from tests.builders.leaving_clients import STAGES, answer_by_stage, leave

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

OPTIONS = ("--body-timeout", "1", "--max-connections", "6000", "--max-connections-per-tenant", "6000")
IDLE_BYTES = 8 << 10
"""The most memory that a connection without a request may cost the gateway."""
SLOTS = 8
STREAM_BYTES = 64 << 20
UNREAD_BYTES = 24 << 20
"""What the kernel may hold of a stream that nobody reads: four of its buffers, at their largest."""
HELD_BYTES = 16 << 20
"""What the gateway may hold of all of them together."""

Stage = tuple[GatewayProcess, FakeEngine]


@pytest.fixture(scope="module")
def descriptors() -> Iterator[None]:
    """Enough for 5,000 connections, here and in the gateway that inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(descriptors: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    async with FakeConductor() as conductor, FakeEngine(slots=SLOTS) as engine:
        await run(gateway, conductor, engine, options=OPTIONS)
        try:
            yield gateway, engine
        finally:
            await gateway.stop()


async def test_clients_that_leave_at_any_stage_free_their_slot_and_are_counted_once(stage, full_size):
    gateway, engine = stage
    assert (await post_chat(gateway))[0] == 200
    watch, rng = await Watch.begin(gateway), random.Random(5)
    engine.usual, turns = answer_by_stage, asyncio.Semaphore(24)
    engine.requests.clear()

    async def one(number: int) -> None:
        async with turns:
            await leave(rng.choice(STAGES), number, gateway.port, engine, rng)

    await asyncio.gather(*(one(number) for number in range(full_size(2000))))
    await eventually(lambda: engine.running == 0)
    await watch.check_at_rest()
    engine.usual = say_so
    assert (await post_chat(gateway))[0] == 200
    watch.check_log()
    ids = {"-".join(seen.headers["x-request-id"].split("-")[:2]) for seen in engine.requests}
    await eventually(lambda: ids <= {line["request_id"] for line in gateway.usage()})
    assert set(Counter(line["request_id"] for line in gateway.usage()).values()) == {1}


async def say_so(_: Seen, wire: Wire) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "here"}}
    await wire.answer(200, orjson.dumps({"object": "chat.completion", "choices": [choice]}))


async def test_thousands_of_idle_connections_cost_little_and_keep_nobody_from_being_served(stage, full_size):
    gateway, engine = stage
    engine.usual, count = say_so, full_size(5000)
    await eventually(lambda: connections(gateway) == 0)
    before = resident_bytes(gateway)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(raw_connection(gateway.port))
        assert (await post_chat(gateway))[0] == 200
        await eventually(lambda: connections(gateway) >= count)
        each = (resident_bytes(gateway) - before) / count

    print(f"{each / 1024:.1f} KiB for each of {count} idle connections")
    assert each < IDLE_BYTES
    await eventually(lambda: connections(gateway) == 0)
    assert (await post_chat(gateway))[0] == 200


async def test_clients_that_read_nothing_slow_their_engines_and_fill_no_memory(stage):
    gateway, engine = stage
    written: Counter[str] = Counter()

    async def stream(seen: Seen, wire: Wire) -> None:
        await wire.stream_head()
        for _ in range(STREAM_BYTES >> 16):
            await wire.chunk(event("x" * (1 << 16)))
            written[seen.headers["x-request-id"]] += 1 << 16

    engine.usual = stream
    before = resident_bytes(gateway)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SLOTS - 1):
            _, writer = await stack.enter_async_context(raw_connection(gateway.port))
            writer.transport.pause_reading()
            writer.write(raw_request(chat(stream=True)))
        await eventually(lambda: len(written) == SLOTS - 1)
        await still(written.total)
        grown = resident_bytes(gateway) - before
        assert max(written.values()) < UNREAD_BYTES, written
        assert grown < HELD_BYTES, f"{grown >> 20} MiB"
    await eventually(lambda: engine.running == 0)
    engine.usual = say_so
    assert (await post_chat(gateway))[0] == 200


async def still(number) -> None:
    """Until it is the same in ten looks."""
    seen: list[int] = []
    while len(seen) < 10 or len(set(seen[-10:])) > 1:
        await asyncio.sleep(0.05)
        seen.append(number())


async def test_bodies_that_come_byte_by_byte_are_given_up_while_others_are_served(stage):
    gateway, engine = stage
    engine.usual = say_so
    data = raw_request(chat("x" * 4000))

    async def trickle() -> bytes:
        async with raw_connection(gateway.port) as (reader, writer):
            answer = asyncio.create_task(reader.read())
            for at in range(len(data)):
                if answer.done():
                    break
                writer.write(data[at : at + 1] if at else data[:200])
                await asyncio.sleep(0.05)
            return await answer

    slow = [asyncio.create_task(trickle()) for _ in range(30)]
    while not all(task.done() for task in slow):
        assert (await post_chat(gateway))[0] == 200
        await asyncio.sleep(0.1)

    for answer in await asyncio.gather(*slow):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 "), answer
        assert orjson.loads(body)["error"]["code"] == "body_too_slow"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%s\r\ncontent-length: 9999999999\r\n\r\n{", 413),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n%s\r\ncookie: " + b"c" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n%s\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /v1/" + b"m" * 9000 + b" HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n", 414),
    ],
)
async def test_what_is_too_large_is_refused_in_openais_shape_and_closed(stage, data: bytes, status: int):
    gateway, _ = stage
    key = next(line for line in raw_request(b"").split(b"\r\n") if line.startswith(b"authorization"))
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(data.replace(b"%s", key))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"\r\nconnection: close" in head
    assert orjson.loads(body)["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "data",
    [
        b"HEAD /healthz%00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HEAD /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\n",
        b"HEAD /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n",
    ],
)
async def test_a_head_gets_no_body_even_when_it_is_refused(stage, data: bytes):
    gateway, _ = stage
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(data)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1
