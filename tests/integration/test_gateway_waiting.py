"""The gateway when models are cold, tenants compete, and clients leave."""

import asyncio
import re
import signal

import openai
import orjson
import pytest
from tests.builders.gateway import (
    KEYS,
    Seen,
    Wire,
    chat,
    config,
    event,
    eventually,
    model_row,
    raw_connection,
    raw_request,
    say_hello,
    tenant,
)
from tests.builders.gateway_calls import HELLO, error_of, gate, get, post_chat, run
from tests.builders.gateway_watch import until

from cotenant_serving.contract import Reason

pytestmark = pytest.mark.integration


async def stream_for_ever(seen: Seen, wire: Wire) -> None:
    await wire.stream_head()
    while not seen.disconnected.is_set():
        await wire.chunk(event("word"))
        await asyncio.sleep(0.01)


async def test_a_cold_model_is_asked_for_and_the_request_waits_for_it(gateway, conductor, engine):
    await run(gateway, conductor)
    conductor.publish(models=(model_row("cold", reason=Reason.IDLE),))

    waiting = asyncio.create_task(post_chat(gateway))
    await eventually(lambda: 1 in conductor.queued())
    assert not waiting.done()
    conductor.publish(engine.row(), models=(model_row(),))

    status, _, _ = await waiting
    assert status == 200
    await eventually(lambda: not conductor.demands[-1].models)


async def test_a_model_that_failed_is_refused_at_once_and_asked_for_again(gateway, conductor):
    await run(gateway, conductor)
    conductor.publish(
        models=(
            model_row("failed", reason=Reason.CORRUPT_WEIGHTS, message="model.safetensors is cut short", eta_s=30),
        )
    )

    status, headers, body = await post_chat(gateway)

    assert (status, error_of(body)["code"]) == (503, "model_failed")
    assert "CorruptWeights: model.safetensors is cut short" in error_of(body)["message"]
    assert 25 <= int(headers["retry-after"]) <= 30
    await eventually(lambda: 1 in conductor.queued())


async def test_an_engine_that_comes_too_late_is_not_waited_for(gateway, conductor, client):
    await run(gateway, conductor, client=client, options=("--hold-timeout", "60"))
    conductor.publish(models=(model_row("waking", reason=Reason.WAKING, eta_s=100),))

    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="echo", messages=HELLO)

    assert (caught.value.status_code, caught.value.code) == (503, "model_loading")
    assert 90 <= int(caught.value.response.headers["retry-after"]) <= 100


async def test_no_room_is_waited_for_until_the_hold_deadline(gateway, conductor):
    await run(gateway, conductor, options=("--hold-timeout", "2"))
    conductor.publish(models=(model_row("waiting", reason=Reason.NO_ROOM, message="3 GiB are missing"),))

    status, headers, body = await post_chat(gateway)

    assert (status, error_of(body)["code"]) == (503, "no_capacity")
    assert "NoRoom: 3 GiB are missing" in error_of(body)["message"]
    assert 1 <= int(headers["retry-after"]) <= 120
    await eventually(gateway.usage)
    assert gateway.usage()[0]["outcome"] == "rejected"


async def test_without_a_conductor_a_cold_request_ends_soon(gateway, conductor):
    await run(gateway, conductor)
    await conductor.stop()

    status, _, body = await post_chat(gateway)

    assert (status, error_of(body)["code"]) == (503, "conductor_unreachable")
    assert "ConductorUnreachable" in error_of(body)["message"]


async def test_warm_models_answer_while_the_conductor_is_gone_even_after_a_restart(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    await conductor.stop()
    assert (await post_chat(gateway))[0] == 200

    gateway.signal(signal.SIGTERM)
    assert await gateway.exited() == 0
    await gateway.start()

    assert (await post_chat(gateway))[0] == 200
    assert (await get(gateway, "/readyz"))[0] == 200


async def test_a_stream_that_waits_for_an_engine_in_sight_is_kept_alive(gateway, conductor, engine):
    await run(gateway, conductor, options=("--waiting-comment-after", "0.2"))
    conductor.publish(models=(model_row("waking", reason=Reason.LOADING, eta_s=50),))

    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(raw_request(chat(stream=True), extra="connection: close\r\n"))
        begun = await asyncio.wait_for(reader.readuntil(b": waiting\n\n"), 20)
        conductor.publish(engine.row(load_s=0.1), models=(model_row(),))
        rest = await asyncio.wait_for(reader.read(), 20)

    assert b" 200 " in begun.splitlines()[0]
    assert b"server-timing" not in begun
    assert re.search(rb": server-timing start;dur=[0-9.]+, load;dur=100.0, engine;dur=[0-9.]+\n\n", rest)
    assert rest.index(b": server-timing ") < rest.index(event("hello"))
    assert begun.count(b"HTTP/1.1") == 1
    assert b"HTTP/1.1" not in rest
    assert event("hello") in rest
    assert b"data: [DONE]" in rest


async def test_what_fails_after_waiting_comments_is_an_error_in_the_stream(gateway, conductor):
    await run(gateway, conductor, options=("--waiting-comment-after", "0.2"))
    conductor.publish(models=(model_row("waking", reason=Reason.LOADING, eta_s=50),))

    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(raw_request(chat(stream=True), extra="connection: close\r\n"))
        await asyncio.wait_for(reader.readuntil(b": waiting\n\n"), 20)
        conductor.publish(models=(model_row("failed", reason=Reason.LOAD_FAILED),))
        rest = await asyncio.wait_for(reader.read(), 20)

    assert b'data: {"error":' in rest
    assert b"model_failed" in rest
    assert b"[DONE]" not in rest
    assert rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_its_engine_and_frees_the_slot(gateway, conductor, engine, stream):
    engine.slots = 1
    _, never = gate()
    await run(gateway, conductor, engine)
    engine.scripts.append(stream_for_ever if stream else never)

    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(raw_request(chat(stream=stream)))
        await (reader.readuntil(b"word") if stream else eventually(lambda: engine.requests))

    status, _, _ = await post_chat(gateway)
    assert status == 200
    assert engine.cancelled == [engine.requests[0].headers["x-request-id"]]
    await eventually(lambda: len(gateway.usage()) == 2)
    left = gateway.usage()[0]
    assert (left["outcome"], left["prompt_tokens"], left["completion_tokens"]) == ("client_closed", 7, 5)
    assert left["estimated"] is False


async def test_a_client_that_leaves_the_queue_wakes_nothing(gateway, conductor):
    await run(gateway, conductor)
    conductor.publish(models=(model_row("waking", reason=Reason.WAKING),))
    async with raw_connection(gateway.port) as (_, writer):
        writer.write(raw_request(chat()))
        await eventually(lambda: 1 in conductor.queued())

    await eventually(gateway.usage)

    assert (gateway.usage()[0]["outcome"], gateway.usage()[0]["prompt_tokens"]) == ("client_closed", 0)
    await eventually(lambda: not conductor.demands[-1].models)


async def test_a_slow_client_slows_its_engine(gateway, conductor, engine):
    sent = [0]

    async def flood(seen: Seen, wire: Wire) -> None:
        wire.writer.transport.set_write_buffer_limits(high=0)
        await wire.stream_head()
        while not seen.disconnected.is_set():
            block = event("x" * 1000) * 16
            await wire.chunk(block)
            sent[0] += len(block)

    await run(gateway, conductor, engine)
    engine.usual = flood

    async with raw_connection(gateway.port) as (reader, writer):
        reader._transport.pause_reading()  # the client does not read at all
        writer.write(raw_request(chat(stream=True)))
        await eventually(lambda: sent[0] > 0)
        before = -1
        while before != sent[0]:
            before = sent[0]
            await asyncio.sleep(1)

    # Kernel socket buffers on both sides take a few MB; without back-pressure it would never stop.
    assert sent[0] < 64 << 20
    await eventually(gateway.usage)


async def test_engines_never_get_more_than_their_slots_and_every_request_is_answered(
    gateway, conductor, engine, other
):
    engine.slots = other.slots = 2
    for one in (engine, other):

        async def paced(seen: Seen, wire: Wire) -> None:
            await asyncio.sleep(0.02)
            await say_hello(seen, wire)

        one.usual = paced
    await run(gateway, conductor, engine, other)

    answers = await asyncio.gather(*(post_chat(gateway, stream=index % 2 == 0) for index in range(40)))

    assert [status for status, _, _ in answers] == [200] * 40
    assert engine.most_running <= 2
    assert other.most_running <= 2
    assert engine.requests
    assert other.requests


async def test_a_tenant_with_one_request_does_not_wait_behind_another_ones_hundred(gateway, conductor, engine):
    engine.slots = 1
    opened, script = gate()
    engine.scripts.append(script)
    await run(gateway, conductor, engine, value=config(tenant("search"), tenant("ads", models=("search/echo",))))
    many = [asyncio.create_task(post_chat(gateway, text=f"many {index}")) for index in range(20)]
    await eventually(lambda: max(conductor.queued(), default=0) == 19)
    one = asyncio.create_task(post_chat(gateway, KEYS["ads"], text="single"))
    await eventually(lambda: conductor.queued()[-1] == 20)

    opened.set()
    await asyncio.gather(one, *many)

    order = [orjson.loads(seen.body)["messages"][0]["content"] for seen in engine.requests]
    assert "single" in order[:3]


async def test_a_request_that_takes_too_long_ends_with_an_error(gateway, conductor, engine):
    _, never = gate()
    await run(gateway, conductor, engine, options=("--request-timeout", "2"))
    engine.scripts.extend([never, stream_for_ever])

    status, _, body = await post_chat(gateway)
    _, _, streamed = await post_chat(gateway, stream=True)

    assert (status, error_of(body)["code"]) == (504, "timeout")
    assert b'"code":"timeout"' in streamed
    assert b"[DONE]" not in streamed
    assert len(engine.cancelled) == 2


async def test_sigterm_lets_running_requests_end_and_exits_with_0(gateway, conductor, engine):
    opened, script = gate()
    await run(gateway, conductor, engine)
    engine.scripts.append(script)
    running = asyncio.create_task(post_chat(gateway))
    await eventually(lambda: engine.requests)

    gateway.signal(signal.SIGTERM)
    await eventually(lambda: any("draining" in line for line in gateway.log))

    async def refuses() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        except OSError:
            return True
        writer.transport.abort()
        return False

    await until(refuses)
    opened.set()

    assert (await running)[0] == 200
    assert await gateway.exited() == 0
    assert gateway.usage()[0]["outcome"] == "ok"


async def test_what_outlasts_the_drain_ends_with_an_error_in_the_stream(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=("--drain-timeout", "0.5"))
    engine.usual = stream_for_ever
    running = asyncio.create_task(post_chat(gateway, stream=True))
    await eventually(lambda: engine.requests)

    gateway.signal(signal.SIGTERM)
    _, _, body = await running

    assert b'"code":"shutting_down"' in body
    assert b"[DONE]" not in body
    assert await gateway.exited() == 0
    (record,) = gateway.usage()
    assert (record["outcome"], record["completion_tokens"]) == ("shutdown", 5)
