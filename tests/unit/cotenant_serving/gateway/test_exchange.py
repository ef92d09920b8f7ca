"""How one request ends: what the client gets, and what stands in the usage file before that."""

import asyncio
from pathlib import Path

import orjson
import pytest
from tests.builders.exchange_stage import MODEL, ExchangeStage, WrittenAnswer
from tests.builders.gateway import event, eventually, stream_end

from cotenant_serving.contract import USAGE_COMMENT
from cotenant_serving.gateway.bodies import BodyBudget
from cotenant_serving.gateway.reply import PIECE_BYTES
from cotenant_serving.gateway.upstream import EngineLostError
from cotenant_serving.openai_api import error_event

ERROR = error_event("Out of memory.", code="engine_broken")
COUNTED = USAGE_COMMENT + b'{"prompt_tokens":7,"completion_tokens":5}\n\n'

ENDS = {
    "with the engine's end": ((event("one"), stream_end(7, 5)), "ok", 5),
    "with the engine's error": ((event("one"), ERROR + COUNTED), "upstream_error", 5),
    "with an error and its usage apart": ((event("one"), ERROR, COUNTED[:9], COUNTED[9:]), "upstream_error", 5),
    "with an error alone": ((event("one"), ERROR), "upstream_error", 1),
    "with an error and a broken connection": ((event("one"), ERROR, EngineLostError("x")), "upstream_error", 1),
    "with a mistake of the gateway": ((event("one"), ZeroDivisionError("x")), "internal_error", 1),
}


@pytest.mark.parametrize(("chunks", "outcome", "tokens"), ENDS.values(), ids=ENDS.keys())
async def test_a_stream_is_counted_before_the_client_has_its_last_event(
    tmp_path: Path, chunks: tuple[bytes | Exception, ...], outcome: str, tokens: int
) -> None:
    stage = ExchangeStage(tmp_path, WrittenAnswer(*chunks))

    await stage.run()

    last = next(index for index, message in enumerate(stage.sent) if _ends(message.get("body", b"")))
    assert stage.lines_at[last] == 1
    assert stage.sent[-1]["more_body"] is False
    assert stage.body().count(b'"error"') + stage.body().count(b"[DONE]") == 1
    record = orjson.loads(stage.lines()[0])
    assert (len(stage.lines()), record["outcome"], record["completion_tokens"]) == (1, outcome, tokens)


async def test_a_large_answer_goes_out_in_pieces_and_holds_no_slot_while_its_client_is_slow(tmp_path: Path) -> None:
    said = b"x" * (3 * PIECE_BYTES + 5)
    stage = ExchangeStage(tmp_path, WrittenAnswer(said, content_type="application/json"))
    stage.reads.clear()

    running = asyncio.create_task(stage.run(stream=False))
    await eventually(lambda: stage.sent)

    assert (stage.dispatcher.running(MODEL), len(stage.lines()), stage.body()) == (0, 1, b"")
    stage.reads.set()
    await running
    sizes = [len(message["body"]) for message in stage.sent[1:]]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 5]
    assert [message["more_body"] for message in stage.sent[1:]] == [True, True, True, False]
    assert stage.body() == said


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES])
async def test_answers_of_every_size_come_whole(tmp_path: Path, size: int) -> None:
    stage = ExchangeStage(tmp_path, WrittenAnswer(bytes(size), content_type="application/json"))

    await stage.run(stream=False)

    assert stage.body() == bytes(size)
    assert [message["more_body"] for message in stage.sent[1:]].count(False) == 1


async def test_answers_are_refused_when_too_much_is_held_for_clients_that_do_not_read(tmp_path: Path) -> None:
    budget = BodyBudget(held_bytes=100_000)
    first = ExchangeStage(tmp_path, WrittenAnswer(bytes(40_000), content_type="application/json"), budget=budget)
    first.reads.clear()
    held = asyncio.create_task(first.run(stream=False))
    await eventually(lambda: first.sent)
    second = ExchangeStage(tmp_path, WrittenAnswer(bytes(40_000), content_type="application/json"), budget=budget)

    await second.run(stream=False)
    first.reads.set()
    await held

    assert (second.sent[0]["status"], orjson.loads(second.body())["error"]["code"]) == (503, "overloaded")
    assert first.body() == bytes(40_000)


def _ends(body: bytes) -> bool:
    return b"[DONE]" in body or b'"error"' in body
