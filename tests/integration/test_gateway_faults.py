"""The gateway when engines misbehave."""

import asyncio

import openai
import pytest
from tests.builders.gateway import (
    FakeEngine,
    Seen,
    Wire,
    chat,
    event,
    eventually,
    fail_with,
    hang_up,
    model_row,
    raw_connection,
    raw_request,
    refuse,
    say_hello,
    stream_end,
)
from tests.builders.gateway_calls import HELLO, error_of, get, post_chat, run

from cotenant_serving.openai_api import error_event

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("refusal", [refuse(421, "misdirected"), refuse(503, "draining")])
async def test_an_engine_that_is_not_the_one_is_left_for_another(gateway, conductor, engine, other, refusal):
    await run(gateway, conductor, engine)
    engine.usual = refusal

    waiting = asyncio.create_task(post_chat(gateway))
    await eventually(lambda: engine.requests)
    conductor.publish(engine.row(), other.row(), models=(model_row(),))

    assert (await waiting)[0] == 200
    assert (await post_chat(gateway))[0] == 200
    assert len(engine.requests) == 1, "a table that still names the instance does not bring it back"


async def test_an_engine_of_another_pool_at_the_address_of_one_is_left_for_another(gateway, conductor, engine, other):
    await run(gateway, conductor, engine)
    engine.usual = refuse(401, "")

    waiting = asyncio.create_task(post_chat(gateway))
    await eventually(lambda: engine.requests)
    conductor.publish(engine.row(), other.row(), models=(model_row(),))

    assert (await waiting)[0] == 200


async def test_a_busy_engine_is_asked_again(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    engine.scripts.extend([refuse(503, "busy"), refuse(503, "loading"), refuse(503, "busy")])

    status, _, _ = await post_chat(gateway)

    assert status == 200
    ids = [seen.headers["x-request-id"] for seen in engine.requests]
    assert len(set(ids)) == 4
    assert b'cotenant_upstream_retries_total{reason="busy"} 2.0' in (await get(gateway, "/metrics"))[2]


async def test_an_engine_that_is_gone_costs_no_request(gateway, conductor, engine, other):
    await run(gateway, conductor, engine, other)
    await engine.stop()

    statuses = [(await post_chat(gateway))[0] for _ in range(10)]

    assert statuses == [200] * 10


async def test_a_request_that_a_hanging_engine_has_not_begun_to_answer_is_tried_elsewhere(
    gateway, conductor, engine, other
):
    await run(gateway, conductor, engine)
    waking, left = asyncio.Event(), asyncio.Event()

    async def hang(seen: Seen, wire: Wire) -> None:
        await seen.disconnected.wait()
        left.set()

    async def hang_within(seen: Seen, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event("word"))
        await waking.wait()
        await wire.chunk(stream_end())
        await wire.end()

    engine.scripts.extend([hang_within, hang])
    begun = asyncio.create_task(post_chat(gateway, stream=True))
    await eventually(lambda: len(engine.requests) == 1)
    not_begun = asyncio.create_task(post_chat(gateway))
    await eventually(lambda: len(engine.requests) == 2)
    conductor.publish(other.row(), models=(model_row(),), silent=(engine.row().instance,))

    assert (await not_begun)[0] == 200
    assert len(other.requests) == 1
    await asyncio.wait_for(left.wait(), 10)
    waking.set()
    assert b"[DONE]" in (await begun)[2], "what was begun may go on, should the engine come back"
    assert b'cotenant_upstream_retries_total{reason="silent"} 1.0' in (await get(gateway, "/metrics"))[2]
    await eventually(lambda: len(gateway.usage()) == 2)
    assert {(record["outcome"], record["estimated"]) for record in gateway.usage()} == {("ok", False)}


async def test_a_stream_that_stands_still_at_an_engine_that_its_conductor_misses_ends_with_an_error(
    gateway, conductor, engine, other
):
    await run(gateway, conductor, engine, options=("--hang-timeout", "4"))
    quiet, left = asyncio.Event(), asyncio.Event()

    async def fall_silent(seen: Seen, wire: Wire) -> None:
        await wire.stream_head()
        for _ in range(60):
            await wire.chunk(event("word"))
            await asyncio.sleep(0.1)
        quiet.set()
        await seen.disconnected.wait()
        left.set()

    engine.scripts.append(fall_silent)
    begun = asyncio.create_task(post_chat(gateway, stream=True))
    await eventually(lambda: engine.requests)
    conductor.publish(other.row(), models=(model_row(),), silent=(engine.row().instance,))
    await asyncio.wait_for(quiet.wait(), 60)
    assert not begun.done(), "as long as something comes it goes on"

    status, _, body = await asyncio.wait_for(begun, 30)

    assert status == 200
    assert body.count(event("word")) == 60
    assert b"no sign of life" in body.rpartition(event("word"))[2]
    assert b"[DONE]" not in body
    await asyncio.wait_for(left.wait(), 10)
    await eventually(gateway.usage)
    (record,) = gateway.usage()
    assert (record["outcome"], record["completion_tokens"]) == ("upstream_error", 60)
    assert (await post_chat(gateway))[0] == 200


async def test_a_request_at_an_engine_that_finishes_what_it_has_is_waited_for(gateway, conductor, engine, other):
    finish = asyncio.Event()

    async def take_time(seen: Seen, wire: Wire) -> None:
        await finish.wait()
        await say_hello(seen, wire)

    async def hang(seen: Seen, wire: Wire) -> None:
        await seen.disconnected.wait()

    async with FakeEngine("hanging") as hanging:
        await run(gateway, conductor, engine, hanging)
        engine.usual, hanging.usual = take_time, hang
        waiting = {asyncio.create_task(post_chat(gateway)) for _ in range(2)}
        await eventually(lambda: engine.requests and hanging.requests)
        conductor.publish(
            other.row(), models=(model_row(),), gone=(engine.row().instance,), silent=(hanging.row().instance,)
        )
        done, waiting = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert [(await one)[0] for one in done] == [200], "the gateway looked, and left the one that hangs"
        finish.set()

        assert [(await one)[0] for one in waiting] == [200]
    assert (len(engine.requests), len(other.requests)) == (1, 1)


async def test_a_connection_that_breaks_before_the_answer_is_tried_again(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    engine.scripts.append(hang_up)

    assert (await post_chat(gateway))[0] == 200

    first, second = (seen.headers["x-request-id"] for seen in engine.requests)
    assert second == f"{first}-2"


async def test_a_request_that_breaks_every_engine_ends(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    engine.usual = hang_up

    status, _, body = await post_chat(gateway)

    assert (status, error_of(body)["code"]) == (502, "upstream_error")
    assert len(engine.requests) == 3


async def test_an_engine_error_is_tried_once_more_and_then_passed_on(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    engine.scripts.append(fail_with(500))
    assert (await post_chat(gateway))[0] == 200

    engine.requests.clear()
    engine.usual = fail_with(500, b'{"error":{"message":"the batch died","type":"server_error","code":"died"}}')
    status, headers, body = await post_chat(gateway)

    assert len(engine.requests) == 2
    assert "server-timing" not in headers, "the phases of an attempt that failed are those of no answer"
    assert (status, error_of(body)["message"], error_of(body)["code"]) == (500, "the batch died", "died")
    engine.usual = fail_with(500, b"Traceback: secret")
    status, _, body = await post_chat(gateway)
    assert (status, error_of(body)["code"]) == (502, "upstream_error")
    assert b"secret" not in body


async def test_the_engines_word_on_a_bad_request_is_passed_on_unchanged(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client)
    said = b'{"error": {"message":"5000 tokens", "type":"invalid_request_error","code":"context_length_exceeded"}}'
    engine.usual = fail_with(400, said)

    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="echo", messages=HELLO)

    assert caught.value.response.content == said
    assert "server-timing" in caught.value.response.headers
    assert caught.value.code == "context_length_exceeded"
    await eventually(gateway.usage)
    assert (gateway.usage()[0]["outcome"], gateway.usage()[0]["prompt_tokens"]) == ("refused", 0)


@pytest.mark.parametrize("broken", ["reset", "short"])
async def test_a_stream_that_breaks_ends_with_an_error_and_without_done(gateway, conductor, engine, client, broken):
    async def script(_: Seen, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event("one") + event("two") + b'data: {"half')
        if broken == "reset":
            await asyncio.sleep(0.2)
            wire.reset()
        else:
            await wire.end()

    await run(gateway, conductor, engine, client=client)
    engine.usual = script

    status, _, body = await post_chat(gateway, stream=True)
    stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in stream]

    assert status == 200
    assert body.startswith(event("one") + event("two") + b'data: {"error":')
    assert b"half" not in body
    assert b"[DONE]" not in body
    await eventually(lambda: len(gateway.usage()) == 2)
    record = gateway.usage()[0]
    assert (record["outcome"], record["completion_tokens"], record["estimated"]) == ("upstream_error", 2, True)


async def test_an_answer_that_breaks_is_a_whole_error(gateway, conductor, engine):
    async def script(_: Seen, wire: Wire) -> None:
        await wire.head(200, {"content-type": "application/json", "content-length": "100"})
        await wire.raw(b'{"id":')
        wire.reset()

    await run(gateway, conductor, engine)
    engine.usual = script

    status, _, body = await post_chat(gateway)

    assert (status, error_of(body)["code"]) == (502, "upstream_error")


async def test_the_usage_comment_may_be_cut_anywhere(gateway, conductor, engine):
    whole = event("hello") + stream_end()

    async def script(_: Seen, wire: Wire) -> None:
        await wire.stream_head()
        for at in range(len(whole)):
            await wire.chunk(whole[at : at + 1])
            await asyncio.sleep(0.001)
        await wire.end()

    await run(gateway, conductor, engine)
    engine.usual = script

    _, _, body = await post_chat(gateway, stream=True)

    assert body == event("hello") + b"data: [DONE]\n\n"


async def test_a_stream_cut_at_its_deadline_ends_with_an_error_though_the_engine_speaks_first(
    gateway, conductor, engine
):
    """The engine ends its stream before it answers the cancel: its own error event is dropped, so ours must come."""
    stopped, ended = asyncio.Event(), asyncio.Event()

    async def script(_: Seen, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event("hello"))
        await stopped.wait()
        await wire.chunk(error_event("The request was cancelled.", code="cancelled"))
        await wire.end()
        ended.set()

    answer = engine.handle

    async def handle(seen: Seen, wire: Wire) -> None:
        if seen.method == "DELETE":
            stopped.set()
            await ended.wait()
            await asyncio.sleep(0.1)
        await answer(seen, wire)

    engine.scripts.append(script)
    engine.handle = handle
    await run(gateway, conductor, engine, options=("--request-timeout", "2"))
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(raw_request(chat(stream=True), extra="connection: close\r\n"))
        text = (await asyncio.wait_for(reader.read(), 30)).decode()
    assert "hello" in text
    assert '"error"' in text
    assert "[DONE]" not in text
