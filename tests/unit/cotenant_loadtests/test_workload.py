"""Scenario → plan."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.scenarios import scenario, stream

from cotenant_loadtests.planned import Message, Planned, Segment
from cotenant_loadtests.reading import ScenarioError
from cotenant_loadtests.words import text_of
from cotenant_loadtests.workload import make_plan

NOWHERE = Path("/nonexistent")
FEW = settings(max_examples=20)


def plan(*streams: dict[str, Any], folder: Path = NOWHERE, **fields: Any) -> list[Planned]:
    return make_plan(scenario(*streams, **fields), folder)


def without_place(requests: list[Planned]) -> list[Any]:
    return [(request.at_s, request.tenant, request.model, request.messages) for request in requests]


def test_a_plan_is_in_order_of_time_and_ids_are_places() -> None:
    requests = plan(stream("a"), stream("b", arrivals={"process": "constant", "rate_per_s": 3}))
    times = [request.at_s for request in requests]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    assert [request.id for request in requests] == list(range(len(requests)))
    assert {request.stream for request in requests} == {"a", "b"}


def test_times_are_whole_microseconds() -> None:
    for request in plan(stream("a", arrivals={"process": "poisson", "rate_per_s": 50})):
        assert request.at_s is not None
        assert request.at_s == round(request.at_s * 1e6) / 1e6


@given(st.integers(0, 2**63 - 1))
@FEW
def test_one_more_stream_leaves_the_others_as_they_were(seed: int) -> None:
    alone = plan(stream("a"), seed=seed)
    beside = plan(stream("b"), stream("a"), stream("c"), seed=seed)
    assert without_place([request for request in beside if request.stream == "a"]) == without_place(alone)


def test_streams_that_are_equal_but_for_their_names_are_independent() -> None:
    requests = plan(stream("a"), stream("b"))
    times = [{request.at_s for request in requests if request.stream == name} for name in ("a", "b")]
    assert not times[0] & times[1]


def test_without_output_the_server_decides_unless_a_line_of_the_prompts_does(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "output_tokens": 3}\n')
    given = {"output": None, "arrivals": {"process": "constant", "rate_per_s": 1}}
    drawn = plan(stream("a", **given))
    of_file = plan(stream("a", prompt={"file": "p.jsonl"}, **given), folder=tmp_path, duration_s=3)
    assert {request.max_tokens for request in drawn} == {None}
    assert [request.max_tokens for request in of_file] == [None, 3, None]


def test_another_length_of_answers_does_not_change_when_they_are_asked_for_nor_the_prompts() -> None:
    short, long = (
        plan(stream("a", output={"tokens": tokens})) for tokens in (3, {"distribution": "exponential", "mean": 9})
    )
    assert without_place(short) == without_place(long)
    assert short != long


def test_a_stream_sends_in_its_own_time_only() -> None:
    times = [request.at_s for request in plan(stream("a", from_s=3, to_s=5), duration_s=10)]
    assert times
    assert all(at_s is not None and 3 <= at_s < 5 for at_s in times)


def test_a_request_says_what_its_stream_says() -> None:
    fields = {"deadline_s": 2.5, "check": "echo", "cancel_after_tokens": 4, "body": {"temperature": 0}}
    request = plan(stream("a", output={"tokens": 9}, **fields))[0]
    assert (request.tenant, request.model, request.api) == ("search", "m", "chat")
    assert (request.max_tokens, request.deadline_s, request.check) == (9, 2.5, "echo")
    assert (request.cancel_after_tokens, request.body) == (4, {"temperature": 0})
    assert request.streamed
    assert request.include_usage


def test_only_answers_of_words_are_streamed() -> None:
    embeddings = stream("a", api="embeddings", output=None, prompt={"tokens": 3, "inputs": 4})
    requests = plan(embeddings)
    assert not any(request.streamed or request.include_usage for request in requests)
    assert all(len(request.messages) == 4 and request.max_tokens is None for request in requests)
    assert len({message for request in requests for message in request.messages}) == 4 * len(requests)


def test_tensors_have_their_shapes_and_other_values_in_each_request() -> None:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [2, 3]}, {"name": "y", "datatype": "BOOL", "shape": [1]}]
    requests = plan(stream("a", api="oip", prompt=None, output=None, inputs=inputs))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in requests[0].tensors] == [
        ("x", "FP32", (2, 3)),
        ("y", "BOOL", (1,)),
    ]
    assert len({tensor.seed for request in requests for tensor in request.tensors}) == 2 * len(requests)


def test_tenants_and_models_are_drawn_for_each_request() -> None:
    requests = plan(stream("a", tenant=["x", "y"], model={"names": ["m-{1..3}"], "zipf": 1}), duration_s=60)
    assert {(request.tenant, request.model) for request in requests} == {
        (tenant, f"m-{number}") for tenant in "xy" for number in (1, 2, 3)
    }


# Shared prefixes


def test_requests_of_a_group_begin_alike_and_there_are_as_many_beginnings_as_groups() -> None:
    prompt = {"tokens": 5, "shared_prefix": {"tokens": {"distribution": "uniform", "min": 7, "max": 90}, "groups": 3}}
    chats = plan(stream("a", prompt=prompt), duration_s=60)
    assert all([message.role for message in chat.messages] == ["system", "user"] for chat in chats)
    assert len({chat.messages[0] for chat in chats}) == 3
    completions = plan(stream("a", api="completions", prompt=prompt), duration_s=60)
    assert len({completion.messages[0].segments[0] for completion in completions}) == 3
    assert {len(completion.messages[0].segments) for completion in completions} == {2}


def test_the_prompt_comes_on_top_of_the_prefix() -> None:
    prompt = {"tokens": 5, "shared_prefix": {"tokens": 7}}
    completion = plan(stream("a", api="completions", prompt=prompt))[0]
    assert len(text_of(completion.messages[0]).split()) == 12


# Conversations


def conversations(**fields: Any) -> dict[int, list[Planned]]:
    given: dict[str, Any] = {"turns": {"distribution": "uniform", "min": 1, "max": 4}, "think_s": 2.5}
    requests = plan(stream("a", conversation=given | fields, prompt={"tokens": 4, "shared_prefix": {"tokens": 6}}))
    found: dict[int, list[Planned]] = {}
    for request in requests:
        first = request.id
        while (before := requests[first].after) is not None:
            first = before
        found.setdefault(first, []).append(request)
    return found


def test_the_first_turn_has_a_time_and_each_other_comes_after_the_one_before() -> None:
    found = conversations()
    assert {len(turns) for turns in found.values()} == {1, 2, 3, 4}
    for turns in found.values():
        assert turns[0].at_s is not None
        assert turns[0].after is None
        for before, turn in pairwise(turns):
            assert (turn.at_s, turn.after, turn.think_s) == (None, before.id, 2.5)
            assert before.id < turn.id


def test_a_turn_has_all_turns_before_it_as_history() -> None:
    for turns in conversations().values():
        for index, turn in enumerate(turns):
            roles = ["system", *["user", "assistant"] * index, "user"]
            assert [message.role for message in turn.messages] == roles
            if index:
                assert turn.messages[: len(turns[index - 1].messages)] == turns[index - 1].messages


def test_answers_stand_in_the_history_with_the_length_that_was_planned() -> None:
    for turns in conversations(turns=3).values():
        answers = [message for message in turns[2].messages if message.role == "assistant"]
        assert [answer.segments[0].tokens for answer in answers] == [turn.max_tokens for turn in turns[:2]]


def test_a_conversation_stays_with_its_tenant_and_its_model() -> None:
    given = stream("a", tenant=["x", "y"], model=["m", "n"], conversation={"turns": 3, "think_s": 1})
    requests = plan(given, duration_s=30)
    for request in requests:
        if request.after is not None:
            before = requests[request.after]
            assert (request.tenant, request.model) == (before.tenant, before.model)


# Files


def test_prompts_of_a_file_are_sent_in_turn(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("first\nsecond  one\n")
    requests = plan(stream("a", prompt={"file": "prompts.txt"}), folder=tmp_path)
    texts = [request.messages for request in requests[:3]]
    assert texts == [(Message("user", text=text),) for text in ("first", "second  one", "first")]


def test_a_prompt_of_a_file_may_say_how_long_its_answer_is(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "output_tokens": 7}\n{"prompt": "b"}\n')
    requests = plan(stream("a", prompt={"file": "prompts.jsonl"}, output={"tokens": 3}), folder=tmp_path)
    assert [request.max_tokens for request in requests[:2]] == [7, 3]


def replay(tmp_path: Path, **fields: Any) -> list[Planned]:
    arrivals = {"process": "trace", "file": "trace.csv", "format": "csv"} | fields
    return plan(
        stream("a", arrivals=arrivals, prompt={"tokens": "trace"}, output={"tokens": "trace"}), folder=tmp_path
    )


def test_a_trace_says_when_requests_come_and_how_long_they_are(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time_s,prompt_tokens,output_tokens\n100,5,2\n101.5,9,0\n")
    requests = replay(tmp_path)
    assert [request.at_s for request in requests] == [0.0, 1.5]
    assert [request.messages[0].segments[0].tokens for request in requests] == [5, 9]
    assert [request.max_tokens for request in requests] == [2, 1]  # an answer has a token at least


def test_prompts_share_the_blocks_that_they_shared_in_a_mooncake_trace(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text(
        '{"timestamp": 0, "input_length": 1030, "output_length": 5, "hash_ids": [7, 8, 9]}\n'
        '{"timestamp": 10, "input_length": 600, "output_length": 5, "hash_ids": [7, 11]}\n'
        '{"timestamp": 20, "input_length": 700, "output_length": 5, "hash_ids": [7]}\n'
    )
    arrivals = {"process": "trace", "file": "trace.jsonl", "format": "mooncake"}
    requests = plan(stream("a", arrivals=arrivals, prompt={"tokens": "trace"}), folder=tmp_path)
    segments: list[tuple[Segment, ...]] = [request.messages[0].segments for request in requests]
    assert [[segment.tokens for segment in found] for found in segments] == [[512, 512, 6], [512, 88], [512, 188]]
    assert len({found[0] for found in segments}) == 1
    texts = [text_of(request.messages[0]).split() for request in requests]
    assert texts[0][:512] == texts[1][:512]
    assert texts[0][512:520] != texts[1][512:520]


# Bounds


def test_a_plan_that_grows_beyond_its_limit_is_given_up_with_the_figures() -> None:
    endless = stream("flood", arrivals={"process": "constant", "rate_per_s": 1_000_000})
    with pytest.raises(ScenarioError) as caught:
        plan(stream("a"), endless, limits={"requests": 1000})
    assert str(caught.value) == (
        "test: streams.1: with stream 'flood' the plan has more than 1000 requests; "
        "lower rates or duration_s, or raise limits.requests"
    )
