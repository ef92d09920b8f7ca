"""What `bench-gateway` asks, what its engine answers, and what it makes of the figures."""

import httptools
import msgspec
import pytest
from benchmarks import gateway, gateway_backend
from benchmarks.gateway import Took, amount_of, ratios
from benchmarks.gateway_sides import CONTROL, LITELLM, ONE, RAY, ROUTER, TWO
from benchmarks.loading import chats_by_callers
from tests.builders.reference_answers import Asked, read_request

from cotenant_loadtests.bodies import render, request_path
from cotenant_serving.contract import HEADER_USAGE, USAGE_COMMENT, Usage
from cotenant_serving.contract_gateway import Table


def asked(*, streamed: bool) -> Asked:
    tokens = gateway.EVENTS if streamed else gateway.WORDS
    plan = chats_by_callers("m", 1, 1, prompt_tokens=gateway.PROMPT_TOKENS, max_tokens=tokens, streamed=streamed)
    return read_request(request_path(plan[0]), render(plan[0]))


class Read:
    """What a client reads of an answer."""

    def __init__(self, answer: bytes) -> None:
        self.headers: dict[str, bytes] = {}
        self.body = b""
        self.ended = False
        httptools.HttpResponseParser(self).feed_data(answer)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended = True


def test_bodies_and_answers_have_the_sizes_that_the_page_says() -> None:
    plan = chats_by_callers("m", 64, 32, prompt_tokens=gateway.PROMPT_TOKENS, max_tokens=8, streamed=False)
    bodies = {render(request) for request in plan}
    assert len(bodies) == 64
    assert all(900 < len(body) < 1200 for body in bodies)
    assert 400 < len(Read(gateway_backend.whole(asked(streamed=False), engine=False)).body) < 600


def test_each_caller_asks_again_when_it_is_answered() -> None:
    plan = chats_by_callers("m", 5, 2, prompt_tokens=3, max_tokens=2, streamed=True)
    assert [(one.at_s, one.after) for one in plan] == [(0, None), (0, None), (None, 0), (None, 1), (None, 2)]


def test_only_a_gateway_of_ours_is_told_the_usage_apart() -> None:
    one, other = (Read(gateway_backend.whole(asked(streamed=False), engine=engine)) for engine in (True, False))
    assert msgspec.json.decode(one.headers.pop(HEADER_USAGE), type=Usage).completion_tokens == gateway.WORDS
    assert (one.headers, one.body) == (other.headers, other.body)


def test_all_sides_stream_the_same_events_but_for_the_comment() -> None:
    request = asked(streamed=True)
    ours, others = (gateway_backend.pieces(request, engine=engine) for engine in (True, False))
    assert len(ours) == len(others) == gateway.EVENTS
    one, other = Read(b"".join(ours)), Read(b"".join(others))
    assert one.ended
    assert other.ended
    comment = USAGE_COMMENT + gateway_backend.usage(request) + b"\n\n"
    assert one.body.endswith(comment + b"data: [DONE]\n\n")
    assert one.body.replace(comment, b"") == other.body


def test_the_table_has_the_engine_that_answers() -> None:
    table = msgspec.json.decode(gateway_backend.table(8800), type=Table)
    assert [(row.model, row.port) for row in table.engines] == [(gateway_backend.MODEL, 8800)]


def rounds(*costs: dict[str, float]) -> list[dict[str, Took]]:
    return [{name: Took(unary_us=cost, chunk_us=cost / 4) for name, cost in one.items()} for one in costs]


def test_ratios_are_of_one_round_and_the_median_over_the_rounds() -> None:
    found = ratios(rounds({ONE: 50, ROUTER: 100}, {ONE: 90, ROUTER: 100}, {ONE: 600, ROUTER: 1000}))
    assert found == {"unary_vs_vllm_router": (0.6, 0.5, 0.9), "chunk_vs_vllm_router": (0.6, 0.5, 0.9)}


def test_all_sides_are_compared_and_the_router_with_itself() -> None:
    found = ratios(rounds({ONE: 50, TWO: 70, ROUTER: 100, CONTROL: 105, LITELLM: 10_000, RAY: 5000}))
    medians = {name: value[0] for name, value in found.items()}
    assert medians["unary_vs_litellm"] == pytest.approx(1 / 200)
    assert medians["chunk_vs_litellm"] == pytest.approx(1 / 200)
    assert medians["unary_vs_ray_serve"] == pytest.approx(1 / 100)
    assert medians["unary_control"] == pytest.approx(1.05)


def test_slow_sides_are_asked_less() -> None:
    assert amount_of(TWO, gateway.FULL) == amount_of(ROUTER, gateway.FULL) == gateway.FULL
    assert amount_of(LITELLM, gateway.FULL).requests < gateway.FULL.requests


def test_a_round_is_the_mean_of_its_two_turns() -> None:
    assert gateway.mean([Took(10, 1, 0.5, 0.25), Took(20, 3, 0.5, 0.75)]) == Took(15, 2, 0.5, 0.5)
