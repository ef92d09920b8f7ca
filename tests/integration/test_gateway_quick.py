"""A usual request takes the short way, and whatever happens on it ends as on the long one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from tests.builders.gateway import eventually
from tests.builders.quick_stage import QuickClient, QuickStage, asking
from tests.builders.raw_engine import END, STREAM, RawEngine, Talk, chunk

from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.metrics import Metrics

pytestmark = pytest.mark.integration

USAGE = b'x-cotenant-usage: {"prompt_tokens":7,"completion_tokens":3}\r\n'
Turn = Callable[[Talk], Awaitable[None]]


def plain(body: bytes = b'{"ok":1}', fields: bytes = USAGE, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status,
        fields,
        len(body),
        body,
    )


class Script:
    """Answers plainly, but the request whose text is `now` as the test says."""

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.cancelled: list[bytes] = []
        self.asked = 0
        """Times that the special one came."""

    async def __call__(self, talk: Talk) -> None:
        while True:
            heard = await talk.request()
            if heard.line.startswith(b"DELETE"):
                self.cancelled.append(heard.line)
                await talk.say(plain(b'{"prompt_tokens":5,"completion_tokens":1}', fields=b""))
            elif b'"now"' in heard.body and self.turn is not None:
                self.asked += 1
                await self.turn(talk)
            else:
                await talk.say(plain())


async def send_special(stage: QuickStage, client: QuickClient, script: Script) -> None:
    """Asks what the script answers in its own way; returns when it is there, by the short way."""
    before = stage.quick_starts
    client.send(asking("now"))
    await eventually(lambda: script.asked > 0)
    assert stage.quick_starts == before + 1, "it went the long way"


async def special(stage: QuickStage, client: QuickClient, script: Script) -> tuple[int, dict[str, str], bytes]:
    """The answer to it."""
    await send_special(stage, client, script)
    answer = await client.answer()
    await eventually(lambda: stage.at_rest)
    return answer


async def die(talk: Talk) -> None:
    talk.reset()
    raise ConnectionResetError


async def test_a_plain_answer_reaches_the_client_whole_and_is_counted_before(tmp_path: Path) -> None:
    script = Script()
    async with QuickStage(tmp_path, RawEngine(script), requests_per_minute=10, tokens_per_minute=10_000) as stage:
        client = await stage.client()
        status, headers, body = await client.ask(asking())
        records = stage.records()
        assert stage.quick_starts == 2  # the connection's first request went step by step
        assert (status, body) == (200, b'{"ok":1}')
        assert headers["x-ratelimit-remaining-requests"] == "7"
        assert headers["x-request-id"] == records[-1]["request_id"]
        assert [(one["prompt_tokens"], one["completion_tokens"], one["estimated"]) for one in records] == [
            (7, 3, False)
        ] * 3
        assert stage.at_rest


async def test_both_ways_answer_and_count_the_same(tmp_path: Path) -> None:
    script = Script()
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        quick = await client.ask(asking())
        slow = await client.ask(asking().replace(b"host: x", b"host: x\r\nx-request-id: mine"))
        assert stage.quick_starts == 2
    for varying in ("x-request-id", "x-client-request-id", "server-timing", "date"):
        quick[1].pop(varying, None)
        slow[1].pop(varying, None)
    assert quick == slow
    own = {"time", "request_id", "duration_s", "time_to_first_byte_s"}
    first, second = ({name: one[name] for name in one if name not in own} for one in stage.records()[-2:])
    assert first == second


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        (b"400 Bad Request", b"", b'{"error":{"message":"no"}}'),
        (b"200 OK", USAGE, b'{"text":"' + b"x" * 100_000 + b'"}'),
        (b"200 OK", b"", b"{}"),
        (b"200 OK", b"x-cotenant-usage: nonsense\r\n", b"{}"),
    ],
    ids=["refused", "large", "no usage", "no usage that can be read"],
)
async def test_another_whole_answer_is_passed_on(tmp_path: Path, status: bytes, fields: bytes, body: bytes) -> None:
    script = Script()
    script.turn = lambda talk: talk.say(plain(body, fields, status))
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        answer = await special(stage, client, script)
        assert (answer[0], answer[2]) == (int(status[:3]), body)
        assert stage.records()[-1]["estimated"] == (fields != USAGE and status == b"200 OK")
        assert (await client.ask(asking()))[0] == 200


async def test_an_answer_in_pieces_arrives_whole(tmp_path: Path) -> None:
    script = Script()
    answer = plain(b"0123456789")

    async def dribble(talk: Talk) -> None:
        for at in range(0, len(answer), 11):
            await talk.say(answer[at : at + 11])
            await asyncio.sleep(0.002)

    script.turn = dribble
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        assert (await special(stage, await stage.client(), script))[::2] == (200, b"0123456789")


async def test_a_stream_that_nobody_asked_for_ends_in_an_event(tmp_path: Path) -> None:
    script = Script()
    script.turn = lambda talk: talk.say(STREAM, chunk(b"data: {}\n\n"), chunk(b"data: [DONE]\n\n"), END)
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        await send_special(stage, client, script)
        got = await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), 20)
        assert b"text/event-stream" in got
        assert b"[DONE]" in got
        await eventually(lambda: stage.at_rest)


@pytest.mark.parametrize(
    "turn",
    [
        lambda talk: talk.say(plain(b"{}", b"x-cotenant-refused: busy\r\n", b"503 Busy")),
        lambda talk: talk.say(plain(b"{}", b"", b"421 Misdirected")),
        lambda talk: talk.say(plain(b"{}", b"", b"500 Broken")),
        lambda talk: talk.say(b"nonsense\r\n\r\n"),
        die,
    ],
    ids=["busy", "misdirected", "failed", "no http", "lost"],
)
async def test_what_an_engine_refuses_another_answers(tmp_path: Path, turn: Turn) -> None:
    bad, good, shown = Script(), Script(), asyncio.Event()

    async def held(talk: Talk) -> None:
        await shown.wait()
        await turn(talk)

    bad.turn, good.turn = held, lambda talk: talk.say(plain(b'{"by":"good"}'))
    async with QuickStage(tmp_path, RawEngine(bad), RawEngine(good)) as stage:
        client = await stage.client()
        stage.show(0)
        assert (await client.ask(asking()))[0] == 200  # engine 0 has an idle connection
        await send_special(stage, client, bad)
        stage.show(1)
        shown.set()
        status, _, body = await client.answer()
        assert (status, orjson.loads(body)) == (200, {"by": "good"})
        await eventually(lambda: stage.at_rest)
        assert [one["outcome"] for one in stage.records()] == ["ok"] * len(stage.records())


async def test_a_lost_engine_costs_nobody_an_answer(tmp_path: Path) -> None:
    bad, good = Script(), Script()
    bad.turn, good.turn = die, lambda talk: talk.say(plain(b'{"by":"good"}'))
    async with QuickStage(tmp_path, RawEngine(bad), RawEngine(good)) as stage:
        client = await stage.client()
        for _ in range(20):
            assert (await client.ask(asking("now")))[::2] == (200, b'{"by":"good"}')
        await eventually(lambda: stage.at_rest)
        assert bad.asked


async def test_a_client_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    script = Script()
    script.turn = lambda talk: talk.until_left()
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        await send_special(stage, client, script)
        client.leave()
        await eventually(lambda: stage.at_rest)
        assert len(script.cancelled) == 1
        last = stage.records()[-1]
        assert (last["outcome"], last["status"]) == ("client_closed", 0)
        assert (last["prompt_tokens"], last["completion_tokens"]) == (5, 1)


@pytest.mark.parametrize("outcome", ["timeout", "shutdown"])
async def test_a_request_that_is_ended_early_tells_its_client_why(tmp_path: Path, outcome: str) -> None:
    script = Script()
    script.turn = lambda talk: talk.until_left()
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        await send_special(stage, client, script)
        if outcome == "shutdown":
            stage.gateway.cut()
        else:
            for one in stage.gateway.exchanges:
                one.deadline = 0.0
            stage.gateway.end_overdue()
        status, _, body = await client.answer()
        expected = error("timeout" if outcome == "timeout" else "shutting_down")
        assert (status, orjson.loads(body)["error"]["code"]) == (expected.status, expected.code)
        await eventually(lambda: stage.at_rest)
        assert stage.records()[-1]["outcome"] == outcome
        assert len(script.cancelled) == 1


async def test_an_engine_that_hangs_is_left_for_another(tmp_path: Path) -> None:
    bad, good = Script(), Script()
    bad.turn, good.turn = lambda talk: talk.until_left(), lambda talk: talk.say(plain(b'{"by":"good"}'))
    async with QuickStage(tmp_path, RawEngine(bad), RawEngine(good)) as stage:
        client = await stage.client()
        stage.show(0)
        assert (await client.ask(asking()))[0] == 200
        await send_special(stage, client, bad)
        stage.show(1)
        for one in tuple(stage.gateway.exchanges):
            one.leave({"i0"})
        assert (await client.answer())[::2] == (200, b'{"by":"good"}')
        await eventually(lambda: stage.at_rest)


class BrokenMetrics(Metrics):
    """Fails at the end of a request."""

    def ended(self, *_: object, **__: object) -> None:
        raise RuntimeError("as the test wants it")


async def test_a_mistake_of_ours_costs_one_answer_and_no_slot(tmp_path: Path) -> None:
    async with QuickStage(tmp_path, RawEngine(Script())) as stage:
        client = await stage.client()
        whole, stage.gateway.metrics = stage.gateway.metrics, BrokenMetrics()
        status, _, body = await client.ask(asking())
        assert (status, orjson.loads(body)["error"]["code"]) == (500, "internal_error")
        assert stage.quick_starts == 2
        assert stage.at_rest
        stage.gateway.metrics = whole
        assert (await client.ask(asking()))[0] == 200


async def test_a_limit_that_is_reached_is_told_and_nothing_stays_taken(tmp_path: Path) -> None:
    script = Script()
    async with QuickStage(tmp_path, RawEngine(script), requests_per_minute=3) as stage:
        client = await stage.client()
        assert (await client.ask(asking()))[0] == 200
        status, headers, _ = await client.ask(asking())
        assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "0")
        assert stage.at_rest
        assert len(stage.records()) == 3


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda data: data.replace(b"Bearer ", b"Bearer x"), 401),
        (lambda data: data.replace(b"POST", b"GET", 1), 405),
        (lambda data: data.replace(b"application/json", b"multipart/form", 1), 415),
        (lambda data: data.replace(b"host: x", b"host: x\r\ncontent-encoding: gzip"), 415),
    ],
    ids=["another key", "another method", "another type", "an encoding"],
)
async def test_what_is_not_usual_is_judged_as_ever(
    tmp_path: Path, change: Callable[[bytes], bytes], status: int
) -> None:
    script = Script()
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        before = stage.quick_starts
        assert (await client.ask(change(asking())))[0] == status
        assert stage.quick_starts == before
        assert stage.at_rest


async def test_a_key_that_is_revoked_is_not_known_any_more(tmp_path: Path) -> None:
    script = Script()
    async with QuickStage(tmp_path, RawEngine(script)) as stage:
        client = await stage.client()
        stage.revoke()
        assert (await client.ask(asking()))[0] == 401
        assert len(stage.records()) == 2
