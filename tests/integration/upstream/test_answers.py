"""What both clients of engines make of an answer, byte by byte: whole, cut, early, too long, or nonsense."""

import asyncio
import random

import pytest
from msgspec.structs import replace
from tests.builders.raw_engine import END, OK, STREAM, RawEngine, Talk, chunk, closing_after, saying
from tests.builders.upstreams import CHAT, ask, whole

from cotenant_serving.gateway.upstream import MAX_HEAD_BYTES, EngineLostError, Upstream
from cotenant_serving.gateway.upstream_lean import LeanUpstream

SECRET = b"my-secret-prompt"
CHUNKED = STREAM + chunk(b"data: a\n\n") + chunk(b"data: b\n\n") + END
ANSWERS = {
    "of a length": (OK, 200, b"hello"),
    "in chunks": (CHUNKED, 200, b"data: a\n\ndata: b\n\n"),
    "in chunks with an extension and trailers": (
        STREAM + b"5;a=b\r\nhello\r\n0\r\nx-cotenant-usage: 1\r\n\r\n", 200, b"hello",
    ),
    "empty": (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500, b""),
    "without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "after others that are none": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK, 200, b"hello",
    ),
    "in HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ANSWERS))
async def test_an_answer_is_read_however_the_network_cuts_it(upstream: Upstream, kind: str) -> None:
    said, status, body = ANSWERS[kind]
    rng = random.Random(7)
    cuts = [sorted(rng.sample(range(1, len(said)), rng.randint(1, 6))) for _ in range(10)]
    for cut in ([], *cuts, list(range(1, len(said)))):
        pieces = [said[start:end] for start, end in zip([0, *cut], [*cut, len(said)], strict=True)]
        async with RawEngine(saying(*pieces)) as engine:
            assert await whole(upstream, engine) == (status, body), f"cut at {cut}"


async def test_an_answer_without_a_length_ends_with_its_connection(upstream: Upstream) -> None:
    async with RawEngine(closing_after(b"HTTP/1.1 200 OK\r\ncontent-type: x\r\n\r\n", b"hel", b"lo")) as engine:
        assert await whole(upstream, engine) == (200, b"hello")
        assert await whole(upstream, engine) == (200, b"hello")
        assert len(engine.talks) == 2


async def test_an_answer_without_a_length_that_is_reset_is_not_whole(lean: LeanUpstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-type: x\r\n\r\nhel")
        await more.wait()
        talk.reset()

    more = asyncio.Event()
    async with RawEngine(script) as engine:
        answer = await ask(lean, engine)
        more.set()
        with pytest.raises(EngineLostError):
            await answer.read()


async def test_an_answer_to_head_has_no_body(upstream: Upstream) -> None:
    async with RawEngine(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")) as engine:
        for _ in range(2):
            assert await whole(upstream, engine, replace(CHAT, method="HEAD", body=b"")) == (200, b"")


async def test_names_of_headers_are_in_lower_case_and_trailers_are_none(upstream: Upstream) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Cotenant-Refused:  busy \r\nEmpty:\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with RawEngine(saying(head, chunk(b"x"), b"0\r\nx-cotenant-usage: late\r\n\r\n")) as engine:
        answer = await ask(upstream, engine)
        assert answer.headers["x-cotenant-refused"] == "busy"
        assert answer.headers["empty"] == ""
        await answer.read()
        assert "x-cotenant-usage" not in answer.headers


@pytest.mark.parametrize("kind", ["of a length", "in chunks"])
async def test_an_answer_that_is_cut_off_anywhere_is_lost(upstream: Upstream, kind: str) -> None:
    said, _, body = ANSWERS[kind]
    for end in range(len(said)):
        async with RawEngine(closing_after(said[:end])) as engine:
            got: list[bytes] = []

            def put(piece: bytes, got: list[bytes] = got) -> bool:
                got.append(piece)
                return True

            with pytest.raises(EngineLostError):
                await (await ask(upstream, engine)).relay(put)
            assert body.startswith(b"".join(got))


GARBAGE = {
    "no HTTP": SECRET + b"\r\n\r\n",
    "HTTP/0.9": b"<html>" + SECRET,
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x28" + SECRET,
    "a status that is none": b"HTTP/1.1 " + SECRET + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\nhello",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": STREAM + SECRET + b"\r\n",
    "a chunk longer than its size": STREAM + b"1\r\n" + SECRET + b"\r\n0\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: " + SECRET + b"\r\n\r\n",
    "a header with NUL": b"HTTP/1.1 200 OK\r\na: b\0" + SECRET + b"\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" + SECRET,
}


@pytest.mark.parametrize("kind", list(GARBAGE))
async def test_nonsense_is_a_lost_engine_and_is_not_quoted(upstream: Upstream, kind: str) -> None:
    async with RawEngine(closing_after(GARBAGE[kind])) as engine:
        with pytest.raises(EngineLostError) as caught:
            await whole(upstream, engine)
        assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * MAX_HEAD_BYTES * 2 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"name: value\r\n" * (MAX_HEAD_BYTES // 6) + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD_BYTES // 10),
        STREAM + b"0\r\n" + b"x: " + b"y" * MAX_HEAD_BYTES * 8,
    ],
    ids=["one header", "many headers", "1xx without end", "trailers without end"],
)
async def test_a_head_without_bounds_is_not_kept(lean: LeanUpstream, said: bytes) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(*(said[at : at + 8192] for at in range(0, len(said), 8192)))
        await talk.until_left()

    async with RawEngine(script) as engine:
        with pytest.raises(EngineLostError):
            await whole(lean, engine)


async def test_more_than_the_limit_is_not_read(upstream: Upstream) -> None:
    async with RawEngine(saying(OK)) as engine:
        assert await (await ask(upstream, engine)).read(limit=5) == b"hello"
        with pytest.raises(EngineLostError, match="more than 4 bytes"):
            await (await ask(upstream, engine)).read(limit=4)

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM, *[chunk(b"x" * 1000)] * 10_000, END)

    async with RawEngine(script) as engine:
        with pytest.raises(EngineLostError, match="more than 100000 bytes"):
            await (await ask(upstream, engine)).read(limit=100_000)


async def test_a_relay_gives_the_pieces_as_they_come(upstream: Upstream) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM)
        for text in (b"one", b"two", b"three"):
            await talk.say(chunk(text))
            assert await heard.get() == text  # it came while the next one was not yet said
        await talk.say(END)
        done.set()

    def put(piece: bytes) -> bool:
        heard.put_nowait(piece)
        return True

    done = asyncio.Event()
    async with RawEngine(script) as engine:
        await (await ask(upstream, engine)).relay(put)
        await done.wait()


async def test_a_relay_gives_what_came_before_it_began(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM + chunk(b"one"))
        await begun.wait()
        await talk.say(chunk(b"two") + END)

    begun = asyncio.Event()
    async with RawEngine(script) as engine:
        got: list[bytes] = []
        answer = await ask(upstream, engine)
        await asyncio.sleep(0.01)
        begun.set()
        await answer.relay(lambda piece: got.append(piece) is None)
        assert b"".join(got) == b"onetwo"


async def test_a_relay_ends_when_enough_was_put(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM + chunk(b"data: [DONE]\n\n"))
        await talk.until_left()

    async with RawEngine(script) as engine:
        answer = await ask(upstream, engine)
        await answer.relay(lambda piece: not piece.endswith(b"[DONE]\n\n"))
        await answer.close()
        await asyncio.wait_for(engine.talks[0].left.wait(), 30)


async def test_what_a_put_raises_ends_the_relay_and_the_connection(upstream: Upstream) -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(STREAM + chunk(b"one"))
        await talk.until_left()

    def put(_: bytes) -> bool:
        raise RuntimeError("the client is gone")

    async with RawEngine(script) as engine:
        answer = await ask(upstream, engine)
        with pytest.raises(RuntimeError, match="the client is gone"):
            await answer.relay(put)
        await engine.talks[0].left.wait()
        await answer.close()


async def test_all_pieces_of_one_read_are_one_put(lean: LeanUpstream) -> None:
    async with RawEngine(saying(STREAM + chunk(b"one") + chunk(b"two") + END)) as engine:
        got: list[bytes] = []
        await (await ask(lean, engine)).relay(lambda piece: got.append(piece) is None)
        assert got == [b"onetwo"]


async def test_an_answer_that_came_at_once_is_read_without_waiting(lean: LeanUpstream) -> None:
    async with RawEngine(saying(OK)) as engine:
        reading = (await ask(lean, engine)).read()
        with pytest.raises(StopIteration) as caught:
            reading.send(None)
        assert caught.value.value == b"hello"
