"""What is wrong with an answer, and what may be told of it."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.loadtest_worker import chat

from cotenant_loadtests.answer_shapes import Embedding, Embeddings, Inference, OutputTensor, Usage
from cotenant_loadtests.checks import (
    Finding,
    check_embeddings,
    check_inference,
    check_usage,
    echo_answer,
    error_code,
    same_model,
    short_word,
    status_outcome,
    tokens_of,
)
from cotenant_loadtests.planned import Message, Planned
from cotenant_loadtests.record import NEVER
from cotenant_serving.engine.echo import answer_tokens


@given(st.lists(st.sampled_from(["a", "bb", "ünï"]), max_size=6), st.integers(1, 20) | st.none())
def test_the_expected_echo_is_what_the_echo_engine_says(words: list[str], max_tokens: int | None) -> None:
    planned = chat(0, messages=(Message(role="user", text="  ".join(words)),), max_tokens=max_tokens)
    tokens = list(answer_tokens(words, max_tokens or len(words) + 1))
    assert echo_answer(planned) == ("".join(tokens), len(tokens))


def test_an_echo_repeats_the_last_words_of_the_user() -> None:
    roles = [("system", "s"), ("user", "first"), ("assistant", "a"), ("user", "last words")]
    planned = chat(0, messages=tuple(Message(role=role, text=text) for role, text in roles), max_tokens=3)
    assert echo_answer(planned).text.startswith("last words [crc32=")


@pytest.mark.parametrize(
    ("usage", "finding"),
    [
        (Usage(3, 4, 7), None),
        (None, Finding("wrong_usage", "missing")),
        (Usage(3, 4, 8), Finding("wrong_usage", "sum")),
        (Usage(3, 4), Finding("wrong_usage", "incomplete")),
        (Usage(-3, 4, 1), Finding("wrong_usage", "incomplete")),
        (Usage(3, 5, 8), Finding("wrong_usage", "completion_tokens")),
        (Usage(2**62, 4, 2**62 + 4), Finding("wrong_usage", "too_many")),
    ],
)
def test_usage_must_be_there_and_add_up(usage: Usage | None, finding: Finding | None) -> None:
    assert check_usage(usage, expected_tokens=4) == finding


@pytest.mark.parametrize("count", [-5, 10**9 + 1, 2**63 - 1, 2**64 - 1, 2**70])
def test_a_count_that_no_answer_can_have_is_not_kept(count: int) -> None:
    assert tokens_of(Usage(count, 4, 7)) == (NEVER, 4)
    assert tokens_of(Usage(3, count, 7)) == (3, NEVER)


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("echo", "echo", True),
        ("team/echo", "echo", True),
        ("echo", "team/echo", True),
        ("team/echo", "other/echo", False),
        ("echo", "echo-2", False),
        ("echo", "", False),
    ],
)
def test_a_model_may_be_named_with_its_namespace_or_without(asked: str, answered: str, same: bool) -> None:
    assert same_model(asked, answered) == same


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, None),
        (201, "http_error"),
        (204, "http_error"),
        (307, "redirect"),
        (404, "http_error"),
        (429, "rate_limited"),
        (500, "http_error"),
        (503, "overloaded"),
    ],
)
def test_a_status_says_what_went_wrong(status: int, outcome: str | None) -> None:
    assert status_outcome(status) == outcome


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"message":"m","type":"t","code":"limit"}}', "limit"),
        (b'{"error":{"message":"m","type":"invalid_request_error","code":null}}', "invalid_request_error"),
        (b'{"error":{"code":400,"type":"BadRequestError"}}', "BadRequestError"),
        (b'{"object":"error","message":"m","type":"NotFoundError","code":404}', "NotFoundError"),
        (b'{"error":{"code":"the prompt was this"}}', ""),
        (b'{"error":{"code":"x\\n"}}', ""),
        (b'{"error":"words of the prompt"}', ""),
        (b'{"error":{"code":"' + b"a" * 65 + b'"}}', ""),
        (b"<html>", ""),
        (b"[]", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_only_codes_are_told_of_errors(body: bytes, code: str) -> None:
    assert error_code(body) == code


def test_words_of_a_server_are_bounded_and_printable() -> None:
    assert short_word("a b\r\n\x1b[31mé" + "x" * 100) == "a?b?[31m?" + "x" * 53


def embeddings(vectors: list[list[float]], indices: list[int], **usage: int) -> Embeddings:
    data = [Embedding(vector, index) for vector, index in zip(vectors, indices, strict=True)]
    return Embeddings(data, "e", Usage(**usage) if usage else None)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (embeddings([[0.1, 0.2], [0.3, 0.4]], [0, 1]), None),
        (embeddings([[0.1, 0.2], [0.3, 0.4]], [0, 1], prompt_tokens=3, total_tokens=3), None),
        (embeddings([[0.1, 0.2], [0.3, 0.4]], [1, 0]), "wrong_answer"),
        (embeddings([[0.1, 0.2]], [0]), "wrong_answer"),
        (embeddings([[0.1, 0.2], [0.3]], [0, 1]), "wrong_answer"),
        (embeddings([[], []], [0, 1]), "wrong_answer"),
        (embeddings([], []), "empty"),
        (embeddings([[0.1], [0.3]], [0, 1], prompt_tokens=3, total_tokens=2), "wrong_usage"),
        (embeddings([[0.1], [0.3]], [0, 1], prompt_tokens=2**70, total_tokens=2**70), "wrong_usage"),
        (embeddings([[0.1], [0.3]], [0, 1], prompt_tokens=-7, total_tokens=3), "wrong_usage"),
    ],
)
def test_there_is_a_vector_for_each_input(answer: Embeddings, outcome: str | None) -> None:
    two = tuple(Message(role="user", text=text) for text in ("one", "two"))
    planned: Planned = chat(0, api="embeddings", messages=two)
    finding = check_embeddings(planned, answer)
    assert (finding and finding.outcome) == outcome


@pytest.mark.parametrize(
    ("output", "outcome"),
    [
        ({"shape": [2, 2], "data": [1, 2, 3, 4]}, None),
        ({"shape": [2, 2], "data": [[1, 2], [3, 4]]}, None),
        ({"shape": [], "data": [1]}, None),
        ({"shape": [2, 2], "data": [1, 2, 3]}, "wrong_answer"),
        ({"shape": [2]}, "wrong_answer"),
        ({"shape": [2], "parameters": {"binary_data_size": 8}}, None),
        ({"shape": [0, 3], "data": []}, None),
        ({"shape": [10**30, 0], "data": []}, None),
        ({"shape": [-2, -2], "data": [1, 2, 3, 4]}, "wrong_answer"),
        ({"shape": [1] * 64, "data": [1]}, None),
        ({"shape": [1] * 65, "data": [1]}, "wrong_answer"),
    ],
)
def test_a_tensor_has_as_many_values_as_its_shape(output: dict[str, Any], outcome: str | None) -> None:
    finding = check_inference(Inference("m", [OutputTensor(name="y", datatype="FP32", **output)]))
    assert (finding and finding.outcome) == outcome


def test_a_shape_of_endless_lengths_takes_no_time() -> None:
    output = OutputTensor(name="y", datatype="FP32", shape=[10**4000] * 500, data=[1])
    began_s = time.process_time()
    assert check_inference(Inference("m", [output])) == Finding("wrong_answer", "shape")
    assert time.process_time() - began_s < 1.0  # the product took 5 s


def test_an_inference_without_outputs_is_empty() -> None:
    assert check_inference(Inference("m", [])) == Finding("empty")
