"""How one request ends: what the client gets, and what stands in the usage file before that."""

import asyncio
from pathlib import Path

import orjson
import pytest
from tests.builders.exchange_stage import MODEL, ExchangeStage, WrittenAnswer
from tests.builders.gateway import event, eventually, stream_end

from cotenant_serving.contract import USAGE_COMMENT
from cotenant_serving.gateway.bodies import BodyBudget
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

    last = next(index for index, piece in enumerate(stage.client.pieces) if _ends(piece))
    assert stage.lines_at[last] == 1
    assert stage.client.ended
    assert stage.client.body.count(b'"error"') + stage.client.body.count(b"[DONE]") == 1
    record = orjson.loads(stage.records()[0])
    assert (len(stage.records()), record["outcome"], record["completion_tokens"]) == (1, outcome, tokens)


async def test_a_large_answer_holds_no_slot_while_its_client_is_slow(tmp_path: Path) -> None:
    said = bytes(200_000)
    stage = ExchangeStage(tmp_path, WrittenAnswer(said, content_type="application/json"))
    stage.client.reads.clear()

    running = asyncio.create_task(stage.run(stream=False))
    await eventually(lambda: stage.client.ended)

    assert (stage.dispatcher.running(MODEL), len(stage.records()), running.done()) == (0, 1, False)
    stage.client.reads.set()
    await running
    assert (stage.client.length, stage.client.body) == (len(said), said)


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_000])
async def test_answers_of_every_size_come_whole(tmp_path: Path, size: int) -> None:
    stage = ExchangeStage(tmp_path, WrittenAnswer(bytes(size), content_type="application/json"))

    await stage.run(stream=False)

    assert (stage.client.length, stage.client.body, stage.client.ended) == (size, bytes(size), True)


async def test_answers_are_refused_when_too_much_is_held_for_clients_that_do_not_read(tmp_path: Path) -> None:
    budget = BodyBudget(held_bytes=100_000)
    first = ExchangeStage(tmp_path, WrittenAnswer(bytes(40_000), content_type="application/json"), budget=budget)
    first.client.reads.clear()
    held = asyncio.create_task(first.run(stream=False))
    await eventually(lambda: first.client.ended)
    second = ExchangeStage(tmp_path, WrittenAnswer(bytes(40_000), content_type="application/json"), budget=budget)

    await second.run(stream=False)
    first.client.reads.set()
    await held

    assert (second.client.status, orjson.loads(second.client.body)["error"]["code"]) == (503, "overloaded")
    assert first.client.body == bytes(40_000)


def _ends(body: bytes) -> bool:
    return b"[DONE]" in body or b'"error"' in body
