"""The gateway as a process of its own, between openai-python and programmable engines and conductor."""

import asyncio
import re

import aiohttp
import openai
import orjson
import pytest
from tests.builders.gateway import (
    KEYS,
    chat,
    config,
    event,
    eventually,
    raw_connection,
    raw_request,
    tenant,
)
from tests.builders.gateway_calls import HELLO, error_of, get, post_chat, request, run, until_ready, with_conductor

pytestmark = pytest.mark.integration


async def test_a_chat_is_answered_and_counted_once(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client)

    raw = await client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)

    assert raw.parse().choices[0].message.content == "hello world"
    assert raw.headers["x-request-id"].startswith("req-")
    assert re.fullmatch(r"queue;dur=[0-9.]+, engine;dur=[0-9.]+", raw.headers["server-timing"])
    assert not [name for name in raw.headers if name.startswith("x-cotenant")]
    await eventually(gateway.usage)
    (record,) = gateway.usage()
    assert (record["prompt_tokens"], record["completion_tokens"], record["estimated"]) == (3, 2, False)
    assert (record["outcome"], record["status"], record["tenant"]) == ("ok", 200, "search")
    assert record["request_id"] == raw.headers["x-request-id"]
    assert (gateway.state / "usage.jsonl").stat().st_mode & 0o777 == 0o600


async def test_the_engine_gets_the_body_unchanged_and_none_of_the_clients_headers(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    body = b'{ "model":"echo", "messages":[{"role":"user","content":"h\\u0069"}] , "user":"u" }'
    headers = {
        "authorization": f"Bearer {KEYS['search']}",
        "cookie": "secret=1",
        "x-cotenant-instance": "forged",
        "x-request-id": "mine-1",
        "content-type": "text/weird",
    }

    status, answered, _ = await request(gateway, "POST", "/v1/chat/completions", body=body, headers=headers)

    assert status == 200
    (seen,) = engine.requests
    assert seen.body == body
    assert set(seen.headers) == {
        *("host", "authorization", "content-type", "content-length"),
        *("x-request-id", "x-cotenant-instance", "x-cotenant-model"),
    }
    assert seen.headers["x-cotenant-instance"] == "i1"
    assert seen.headers["x-cotenant-model"] == "search/echo"
    assert seen.headers["x-request-id"] == answered["x-request-id"] != "mine-1"
    assert answered["x-client-request-id"] == "mine-1"


async def test_a_stream_comes_through_without_the_usage_comment(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client)

    stream = await client.chat.completions.create(model="search/echo", messages=HELLO, stream=True)
    texts = [chunk.choices[0].delta.content async for chunk in stream]
    _, headers, body = await post_chat(gateway, stream=True)

    assert texts == ["hello", " world"]
    assert body == event("hello") + event(" world") + b"data: [DONE]\n\n"
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    await eventually(lambda: len(gateway.usage()) == 2)
    assert {(r["prompt_tokens"], r["completion_tokens"], r["estimated"]) for r in gateway.usage()} == {(3, 2, False)}


async def test_text_completions_go_to_their_own_route(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    body = orjson.dumps({"model": "echo", "prompt": "hi"})

    status, _, _ = await request(gateway, "POST", "/v1/completions", body=body, headers={"x-api-key": KEYS["search"]})

    assert status == 200
    assert engine.requests[0].path == "/v1/completions"


async def test_wrong_and_missing_keys_are_refused_without_repeating_them(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client)
    wrong = "key-that-nobody-has"

    status, _, body = await post_chat(gateway, wrong)
    assert (status, error_of(body)["code"]) == (401, "invalid_api_key")
    for path in ("/v1/models", "/v1/models/echo"):
        assert (await get(gateway, path))[0] == 401
    both = {"authorization": f"Bearer {KEYS['search']}", "x-api-key": wrong}
    assert (await request(gateway, "POST", "/v1/chat/completions", body=chat(), headers=both))[0] == 401
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key=wrong).models.list()
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await get(gateway, path))[0] == 200
    assert wrong not in body.decode() + "".join(gateway.log) + (await get(gateway, "/metrics"))[2].decode()
    assert not engine.requests


async def test_tenants_see_only_their_models(gateway, conductor, engine, client):
    value = config(
        tenant("search", models=("search/echo", "platform/echo", "search/tiny")),
        tenant("ads", models=("ads/secret",)),
    )
    await run(gateway, conductor, engine, client=client, value=value)

    listed = [(m.id, m.owned_by) async for m in client.models.list()]
    assert sorted(listed) == [("platform/echo", "platform"), ("search/echo", "search"), ("tiny", "search")]
    assert (await client.models.retrieve("search/tiny")).id == "tiny"
    with pytest.raises(openai.BadRequestError, match="platform/echo, search/echo"):
        await client.chat.completions.create(model="echo", messages=HELLO)
    bodies = []
    for model in ("ads/secret", "ads/absent"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model=model, messages=HELLO)
        assert caught.value.code == "model_not_found"
        bodies.append(caught.value.response.content.replace(model.encode(), b"NAME"))
    assert bodies[0] == bodies[1]


async def test_limits_answer_429_and_say_when(gateway, conductor, engine, client):
    value = config(tenant(requests_per_minute=2, tokens_per_minute=100_000))
    await run(gateway, conductor, engine, client=client, value=value)

    first = await client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
    await client.chat.completions.create(model="echo", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="echo", messages=HELLO)

    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert caught.value.code == "rate_limit_exceeded"
    assert "2 requests per minute" in caught.value.message
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.BadRequestError, match="100000 tokens per minute"):
        await client.chat.completions.create(model="echo", messages=HELLO, max_tokens=200_000)


async def test_tokens_are_settled_with_what_was_used(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client, value=config(tenant(tokens_per_minute=1000)))

    # Each costs 900 on entry and 5 in the end: without settling the second would be refused.
    for _ in range(3):
        await client.chat.completions.create(model="echo", messages=HELLO, max_tokens=900)


async def test_who_has_its_answer_may_ask_again_at_once_and_its_usage_outlives_a_kill(gateway, conductor, engine):
    await run(gateway, conductor, engine, value=config(tenant(concurrent_requests=1)))
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEYS['search']}"}) as session:
        for count in range(60):
            body = chat(stream=count % 2 == 0)
            async with session.post(gateway.url + "/v1/chat/completions", data=body) as response:
                await response.read()
            assert (response.status, len(gateway.settled())) == (200, count + 1)
    await eventually(lambda: len(gateway.usage()) == 60)


async def test_changes_of_the_configuration_apply_to_the_next_request(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    async with aiohttp.ClientSession() as session:

        async def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            async with session.get(gateway.url + "/v1/models", headers=headers) as response:
                await response.read()
                return response.status

        async def until(key: str, wanted: int) -> None:
            async with asyncio.timeout(20):
                while await status(key) != wanted:
                    await asyncio.sleep(0.05)

        assert (await status(KEYS["search"]), await status(KEYS["ads"])) == (200, 401)
        gateway.write_config(with_conductor(config(tenant("ads"), generation=2), conductor))
        await until(KEYS["ads"], 200)
        await until(KEYS["search"], 401)

        gateway.config_file.write_text('{"generation": "three"')
        await eventually(lambda: any("is not used" in line for line in gateway.log))
        assert await status(KEYS["ads"]) == 200


async def test_a_key_that_is_revoked_while_its_request_arrives_is_refused(gateway, conductor, engine):
    await run(gateway, conductor, engine)
    whole = raw_request(chat("x" * 300_000))
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(whole[:100_000])
        await writer.drain()
        gateway.write_config(with_conductor(config(tenant("ads"), generation=2), conductor))
        await eventually(lambda: any("generation 2" in line for line in gateway.log))
        writer.write(whole[100_000:])
        head = await reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 401 ")
    assert not engine.requests


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_json"),
        (b'{"model":"echo","messages":[],"tools":[1]}', {}, 400, "unsupported_parameter"),
        (chat(), {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
        (chat(), {"content-encoding": "gzip", "content-type": "application/json"}, 415, "unsupported_encoding"),
        (chat("x" * 3000), {}, 413, "body_too_large"),
    ],
)
async def test_bad_bodies_are_refused_before_any_engine(gateway, conductor, engine, body, headers, status, code):
    await run(gateway, conductor, engine, options=("--max-body-bytes", "2000"))
    given = {"authorization": f"Bearer {KEYS['search']}", **headers}

    got, _, answer = await request(gateway, "POST", "/v1/chat/completions", body=body, headers=given)

    assert (got, error_of(answer)["code"]) == (status, code)
    assert not engine.requests


async def test_a_chunked_body_that_came_whole_is_not_longer_than_others(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=("--max-body-bytes", "2000"))
    body = chat("x" * 3000)
    head = raw_request(b"", extra="content-type: application/json\r\n").replace(
        b"content-length: 0", b"transfer-encoding: chunked"
    )
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert not engine.requests


async def test_an_endless_chunked_body_is_cut_off_with_an_answer(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=("--max-body-bytes", "2000", "--body-timeout", "1"))
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['search']}\r\n".encode()

    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(head + b"content-length: 100\r\n\r\nonly this")
        slow = await asyncio.wait_for(reader.read(), 20)

    assert b" 413 " in answer.splitlines()[0]
    assert b"body_too_large" in answer
    assert b"connection: close" in answer
    assert b" 408 " in slow.splitlines()[0]


async def test_unknown_routes_and_methods_are_errors_in_openais_shape(gateway, conductor):
    await run(gateway, conductor)

    status, _, body = await get(gateway, "/v1/nothing")
    assert (status, error_of(body)["code"]) == (404, "unknown_route")
    status, headers, body = await get(gateway, "/v1/chat/completions")
    assert (status, headers["allow"], error_of(body)["code"]) == (405, "POST", "method_not_allowed")
    status, headers, body = await request(gateway, "POST", "/v1/models")
    assert (status, headers["allow"], error_of(body)["code"]) == (405, "GET", "method_not_allowed")


async def test_garbage_and_endless_headers_close_the_connection(gateway, conductor):
    await run(gateway, conductor)

    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(b"NONSENSE\r\n\r\n")
        assert b" 400 " in (await asyncio.wait_for(reader.read(), 20)).splitlines()[0]
    async with raw_connection(gateway.port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"y" * 200_000)
        assert b" 431 " in (await asyncio.wait_for(reader.read(), 20)).splitlines()[0]
    assert (await get(gateway, "/healthz"))[0] == 200


async def test_metrics_name_tenants_models_and_ends_but_no_key(gateway, conductor, engine, client):
    await run(gateway, conductor, engine, client=client)
    await client.chat.completions.create(model="echo", messages=HELLO)
    await post_chat(gateway, "wrong-key")

    text = (await get(gateway, "/metrics"))[2].decode()

    assert 'cotenant_requests_total{code="200",model="search/echo",outcome="ok",tenant="search"} 1.0' in text
    assert 'cotenant_tokens_total{kind="completion",model="search/echo",tenant="search"} 2.0' in text
    assert 'cotenant_rejections_total{reason="invalid_api_key",tenant="other"} 1.0' in text
    assert 'cotenant_engines{model="search/echo"} 1.0' in text
    assert 'cotenant_time_to_first_byte_seconds_count{model="search/echo"} 1.0' in text
    assert KEYS["search"] not in text


async def test_readiness_waits_for_a_configuration_and_a_conductor(gateway, conductor):
    await conductor.stop()
    await gateway.start()
    status, _, body = await get(gateway, "/readyz")
    assert (status, orjson.loads(body)["reason"]) == (503, "no configuration is loaded")
    assert (await post_chat(gateway))[0] == 503

    gateway.write_config(with_conductor(config(), conductor))
    async with asyncio.timeout(20):
        while b"no conductor" not in (await get(gateway, "/readyz"))[2]:
            await asyncio.sleep(0.05)

    await conductor.start()
    conductor.publish()
    await until_ready(gateway, within_s=20)
