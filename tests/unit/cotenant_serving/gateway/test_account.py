"""What a request counts for: in usage, and in the turns of the waiting line."""

from typing import Any

from cotenant_serving.contract import Usage
from cotenant_serving.contract_gateway import Limits
from cotenant_serving.gateway.account import Call, Ending, tokens_used
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.board import LocalAccount
from cotenant_serving.gateway.upstream import Outgoing


def call(*, tokens: int, body: bytes = b"x" * 400) -> Call:
    outgoing = Outgoing("POST", "/v1/embeddings", body, {})
    where = TenantLimits("search", Limits(), LocalAccount(), 0.0)
    return Call(
        "r", outgoing, "search", "search/m", False, prompt_tokens=tokens, tokens=tokens, limits=where, began=0.0
    )


def ending(**fields: Any) -> Ending:
    known: dict[str, Any] = {"outcome": "ok", "status": 200, "ran": True, "usage": None, "events": 0}
    return Ending(**{**known, "first_byte_s": None, **fields})


def test_what_an_engine_counted_is_the_usage():
    counted = Usage(prompt_tokens=7, completion_tokens=2)

    assert tokens_used(call(tokens=100), ending(usage=counted)) == (counted, False)


def test_without_a_count_the_body_and_the_events_stand_for_it():
    assert tokens_used(call(tokens=100), ending(events=3)) == (Usage(prompt_tokens=100, completion_tokens=3), True)
    assert tokens_used(call(tokens=100), ending(ran=False)) == (Usage(prompt_tokens=0, completion_tokens=0), False)


def test_tensors_have_no_tokens_but_weigh_something_in_the_turns_of_the_line():
    tensors = call(tokens=0)

    assert tokens_used(tensors, ending())[0] == Usage(prompt_tokens=0, completion_tokens=0)
    assert tensors.weight == 100
    assert call(tokens=0, body=b"").weight == 1
    assert call(tokens=30).weight == 30
