"""How one request ends: what the client gets, and what stands in the usage file before that."""

from pathlib import Path

import orjson
import pytest
from tests.builders.exchange_stage import ExchangeStage, WrittenAnswer
from tests.builders.gateway import event, stream_end

from cotenant_serving.contract import USAGE_COMMENT
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


def _ends(body: bytes) -> bool:
    return b"[DONE]" in body or b'"error"' in body
