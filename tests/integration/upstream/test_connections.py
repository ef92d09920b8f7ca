"""What both clients of engines do with connections: made, used again, given up; and what they put on them."""

import asyncio
import socket

import pytest
from msgspec.structs import replace
from tests.builders.gateway import POOL_TOKEN, eventually, row
from tests.builders.raw_engine import END, OK, STREAM, Heard, RawEngine, Talk, chunk, closing_after, hang, saying
from tests.builders.upstreams import CHAT, ask, whole

from cotenant_serving.contract import Usage
from cotenant_serving.gateway.upstream import EngineLostError, EngineUnreachableError, Outgoing, Upstream
from cotenant_serving.gateway.upstream_lean import LeanUpstream


class Listening:
    """A script that keeps the requests it answers."""

    def __init__(self, *pieces: bytes) -> None:
        self.heard: list[Heard] = []
        self._pieces = pieces or (OK,)

    async def __call__(self, talk: Talk) -> None:
        while True:
            self.heard.append(await talk.request())
            await talk.say(*self._pieces)


async def test_a_request_says_who_is_meant_and_for_whom_it_is(upstream: Upstream) -> None:
    async with RawEngine(script := Listening()) as engine:
        await whole(upstream, engine)
        await whole(upstream, engine, Outgoing("GET", "/v2/models/a", b"", {}))
    post, get = script.heard
    assert post.line == b"POST /v1/chat/completions HTTP/1.1"
    assert post.body == CHAT.body
    for name, value in {
        b"host": f"127.0.0.1:{engine.port}",
        b"authorization": f"Bearer {POOL_TOKEN}",
        b"content-type": "application/json",
        b"content-length": str(len(CHAT.body)),
        b"x-request-id": "req-1",
        b"x-cotenant-instance": "i1",
        b"x-cotenant-model": "search/echo",
    }.items():
        assert post.header(name) == value.encode(), name
    assert get.line == b"GET /v2/models/a HTTP/1.1"
    assert (get.body, get.header(b"content-type")) == (b"", None)


async def test_the_pool_token_is_the_one_of_now(lean: LeanUpstream) -> None:
    token = "first"
    client = LeanUpstream(lambda: token)
    async with RawEngine(script := Listening()) as engine:
        await whole(client, engine)
        token = "second"
        await whole(client, engine)
        await client.close()
    assert [heard.header(b"authorization") for heard in script.heard] == [b"Bearer first", b"Bearer second"]


PATHS = {
    "/v2/models/a b/infer": b"/v2/models/a%20b/infer",
    "/v2/models/a\r\nx: y/infer": b"/v2/models/a%0D%0Ax:%20y/infer",
    "/v2/models/a?b#c": b"/v2/models/a%3Fb%23c",
    "/v2/models/100%2F": b"/v2/models/100%252F",
    "/v2/models/naïve/\0": b"/v2/models/na%C3%AFve/%00",
    "/v2/models/\ud800": b"/v2/models/%3F",
    "/v2/models/a:b@c,d;e=f+g~h!$&'()*": b"/v2/models/a:b@c,d;e=f+g~h!$&'()*",
    "/v2//models/../a": b"/v2//models/../a",
}


@pytest.mark.parametrize("path", list(PATHS), ids=[repr(path) for path in PATHS])
async def test_a_decoded_path_is_encoded_again_whole(upstream: Upstream, path: str) -> None:
    async with RawEngine(script := Listening()) as engine:
        await whole(upstream, engine, replace(CHAT, path=path))
        await whole(upstream, engine)
    assert [heard.line for heard in script.heard] == [
        b"POST " + PATHS[path] + b" HTTP/1.1",
        b"POST /v1/chat/completions HTTP/1.1",
    ]


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a\nb", "a\0b", "a\x7fb", "naïve", "\u2028"], ids=repr)
async def test_nothing_that_would_break_a_head_gets_into_one(upstream: Upstream, bad: str) -> None:
    async with RawEngine(script := Listening()) as engine:
        for outgoing, id_ in (
            (CHAT, bad),
            (replace(CHAT, headers={"content-type": bad}), "req-1"),
            (replace(CHAT, headers={"traceparent": bad}), "req-1"),
            (replace(CHAT, headers={bad: "x"}), "req-1"),
        ):
            with pytest.raises(ValueError, match="characters"):
                await ask(upstream, engine, outgoing, id_)
        for given in (row(bad, port=engine.port), row("i1", model=bad, port=engine.port)):
            with pytest.raises(EngineUnreachableError):
                await upstream.send(given, CHAT, "req-1")
            assert await upstream.cancel(given, "req-1") is None
    assert [heard.line for heard in script.heard if b"DELETE" not in heard.line] == []


async def test_thousands_of_requests_in_turn_use_one_connection(upstream: Upstream) -> None:
    async with RawEngine(saying(OK)) as engine:
        for _ in range(5000 if isinstance(upstream, LeanUpstream) else 1000):
            assert await whole(upstream, engine) == (200, b"hello")
        assert len(engine.talks) == 1


async def test_streams_at_the_same_time_never_mix(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        while True:
            number = (await talk.request()).body
            await talk.say(STREAM, *[chunk(number)] * (int(number) % 17 + 1), END)

    async def one(number: int) -> None:
        text = b"%d," % number
        answer = await ask(upstream, engine, replace(CHAT, body=text[:-1]), f"req-{number}")
        got: list[bytes] = []
        await answer.relay(lambda piece: got.append(piece) is None)
        await answer.close()
        assert b"".join(got) == text[:-1] * (number % 17 + 1)

    async with RawEngine(script) as engine:
        for start in range(100, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        assert len(engine.talks) <= 50


BEYOND = pytest.mark.parametrize(
    "beyond", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"more", b"HT"], ids=repr
)


@BEYOND
async def test_bytes_in_the_same_read_beyond_an_answer_are_nobodys(lean: LeanUpstream, beyond: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK + beyond)
        await talk.until_left()

    async with RawEngine(script) as engine:
        for number in (1, 2):
            assert await whole(lean, engine) == (200, b"hello")
            assert len(engine.talks) == number


@BEYOND
async def test_bytes_that_come_later_than_an_answer_are_nobodys(lean: LeanUpstream, beyond: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await answered.wait()
        await talk.say(beyond)
        await talk.until_left()

    answered = asyncio.Event()
    async with RawEngine(script) as engine:
        assert await whole(lean, engine) == (200, b"hello")
        answered.set()
        await engine.talks[0].left.wait()
        assert await whole(lean, engine) == (200, b"hello")
        assert len(engine.talks) == 2


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_an_engine_that_closes_after_its_answer_is_asked_on_a_new_connection(
    upstream: Upstream, version: bytes
) -> None:
    said = version + b" 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
    async with RawEngine(saying(said)) as engine:
        for number in (1, 2):
            assert await whole(upstream, engine) == (200, b"hello")
            assert len(engine.talks) == number


async def test_a_connection_that_its_engine_closed_while_idle_is_not_used(upstream: Upstream) -> None:
    async with RawEngine(closing_after(OK)) as engine:
        for _ in range(20):
            assert await whole(upstream, engine) == (200, b"hello")
            await engine.talks[-1].writer.wait_closed()
            await asyncio.sleep(0.005)


async def test_a_used_connection_that_closes_without_an_answer_is_a_lost_engine(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.request()

    async with RawEngine(script) as engine:
        assert await whole(upstream, engine) == (200, b"hello")
        with pytest.raises(EngineLostError):
            await whole(upstream, engine)


async def test_nobody_at_the_address_is_an_engine_that_saw_nothing(upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for host, number in (("127.0.0.1", port), ("127.0.0.1", 70000), ("not a host", 1), ("256.1.1.1", 1)):
        with pytest.raises(EngineUnreachableError):
            await upstream.send(row("i1", host=host, port=number), CHAT, "req-1")


async def test_an_engine_at_an_ipv6_address_is_asked(upstream: Upstream) -> None:
    try:
        server = RawEngine(script := Listening(), host="::1")
        await server.__aenter__()
    except OSError:
        pytest.skip("no IPv6 here")
    assert await whole(upstream, server) == (200, b"hello")
    assert script.heard[0].header(b"host") == b"[::1]:%d" % server.port
    await server.__aexit__()


@pytest.mark.parametrize("stage", ["before the head", "reading", "relaying"])
async def test_who_is_cancelled_while_waiting_leaves_the_engine(upstream: Upstream, stage: str) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        if stage != "before the head":
            await talk.say(STREAM + chunk(b"x"))
        await talk.until_left()

    async def work() -> None:
        answer = await ask(upstream, engine)
        await (answer.read() if stage == "reading" else answer.relay(lambda _: True))

    async with RawEngine(script) as engine:
        task = asyncio.create_task(work())
        await eventually(lambda: engine.talks)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(engine.talks[0].left.wait(), 30)


async def test_an_answer_that_is_closed_in_the_middle_closes_its_connection(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM)
        while True:
            await talk.say(chunk(b"x" * 1000))
            await asyncio.sleep(0.001)

    async with RawEngine(script) as engine:
        answer = await ask(upstream, engine)
        await answer.close()
        await answer.close()
        await asyncio.wait_for(engine.talks[0].left.wait(), 30)


async def test_a_connection_whose_answer_only_lacks_its_end_is_used_again(lean: LeanUpstream) -> None:
    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(STREAM + chunk(b"data: [DONE]\n\n"))
            await closed.wait()
            closed.clear()
            await talk.say(END)

    closed = asyncio.Event()
    async with RawEngine(script) as engine:
        for _ in range(3):
            answer = await ask(lean, engine)
            await answer.relay(lambda _: False)
            await answer.close()
            closed.set()
            await asyncio.sleep(0.01)
        assert len(engine.talks) == 1


async def test_a_closed_answer_cannot_touch_the_next_one(lean: LeanUpstream) -> None:
    async with RawEngine(saying(OK)) as engine:
        old = await ask(lean, engine)
        assert await old.read() == b"hello"
        new = await ask(lean, engine)
        old.pause()
        await old.close()
        assert await new.read() == b"hello"
        assert len(engine.talks) == 1


async def test_a_cancel_tells_what_was_used(upstream: Upstream) -> None:
    said = b'HTTP/1.1 200 OK\r\ncontent-length: 41\r\n\r\n{"prompt_tokens":7,"completion_tokens":5}'
    async with RawEngine(script := Listening(said)) as engine:
        async with asyncio.timeout(30):
            while (used := await upstream.cancel(engine.row, "req-1")) is None:
                pass  # on a machine that is too busy for its deadline
        assert used == Usage(prompt_tokens=7, completion_tokens=5)
    assert script.heard[0].line == b"DELETE /v1/requests/req-1 HTTP/1.1"
    assert script.heard[0].header(b"authorization") == f"Bearer {POOL_TOKEN}".encode()


@pytest.mark.parametrize(
    "script",
    [
        saying(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"),
        saying(OK),
        closing_after(b"nonsense"),
        closing_after(),
        hang,
    ],
    ids=["unknown", "no usage", "no HTTP", "closes", "hangs"],
)
async def test_a_cancel_never_fails_and_never_waits_long(upstream: Upstream, script) -> None:
    async with RawEngine(script) as engine:
        assert await upstream.cancel(engine.row, "req-1") is None


async def test_a_client_that_is_closed_leaves_its_engines(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.until_left()

    async with RawEngine(script) as engine:
        await whole(upstream, engine)
        await upstream.close()
        await asyncio.wait_for(engine.talks[0].left.wait(), 30)
