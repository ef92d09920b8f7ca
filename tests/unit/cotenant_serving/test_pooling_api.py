"""Embeddings, rerank, score and classify: what is accepted, what is refused and how, and the shapes of answers."""

import base64
import json
from array import array
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.pooling_api import (
    MAX_INPUT_TOKENS,
    MAX_INPUTS,
    MAX_PAIR_CHARS,
    classify_answer,
    embeddings_answer,
    parse_classify,
    parse_embeddings,
    parse_rerank,
    parse_score,
    rerank_answer,
    score_answer,
)
from cotenant_serving.request_fields import RequestError

PARSERS = {
    "embeddings": (parse_embeddings, {"input": "a"}),
    "classify": (parse_classify, {"input": "a"}),
    "rerank": (parse_rerank, {"query": "a", "documents": ["b"]}),
    "score": (parse_score, {"text_1": "a", "text_2": "b"}),
}
texts = st.text(min_size=1, max_size=20)
tokens = st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=5)


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", **fields})


def refusal(parse: Any, raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(raw)
    assert caught.value.status == 400
    return caught.value


@given(st.one_of(st.lists(texts, min_size=1, max_size=5), st.lists(tokens, min_size=1, max_size=5)))
def test_arrays_of_texts_or_of_token_arrays_come_through(inputs: list[Any]) -> None:
    for parse in (parse_embeddings, parse_classify):
        request = parse(body(input=inputs))

        assert [one if isinstance(one, str) else list(one) for one in request.inputs] == inputs
        assert request.name_of(0) == "input[0]"


@given(st.one_of(texts, tokens))
def test_one_text_or_one_token_array_is_one_input(value: Any) -> None:
    request = parse_embeddings(body(input=value))

    assert request.inputs == (value if isinstance(value, str) else tuple(value),)
    assert request.name_of(0) == "input"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, "input"),
        ([], "input"),
        ({}, "input"),
        (7, "input"),
        ("", "input"),
        (["a", ""], "input[1]"),
        (["a", "b", 3], "input[2]"),
        (["a", [1]], "input[1]"),
        ([[1], "a"], "input[1]"),
        ([[1], []], "input[1]"),
        ([[1], [2, -1]], "input[1][1]"),
        ([[1, True]], "input[0][1]"),
        ([1, 2, 1.5], "input[2]"),
        ([True], "input[0]"),
        ([1, [2]], "input[1]"),
        ([None], "input[0]"),
        ([[[1]]], "input[0][0]"),
        ([1, 2**53], "input[1]"),
        (["a"] * (MAX_INPUTS + 1), "input"),
        ([1] * (MAX_INPUT_TOKENS + 1), "input"),
        ([[1] * MAX_INPUT_TOKENS, [1]], "input"),
    ],
)
def test_inputs_that_are_refused_are_named_with_their_index(value: Any, field: str) -> None:
    for parse in (parse_embeddings, parse_classify):
        problem = refusal(parse, json.dumps({"model": "m", "input": value}).encode())

        assert (problem.param, problem.code) == (field, "invalid_value")
        assert f"'{field}'" in problem.message
        assert len(problem.message) < 400


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": []}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": True}, "truncate_prompt_tokens"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
    ],
)
def test_wrong_values_of_options_are_named(fields: dict[str, Any], field: str) -> None:
    assert refusal(parse_embeddings, body(**{"input": "a", **fields})).param == field


def test_options_come_through() -> None:
    request = parse_embeddings(
        body(input="a", encoding_format="base64", dimensions=8, truncate_prompt_tokens=-1, user="u")
    )

    assert (request.model, request.encoding_format, request.dimensions) == ("m", "base64", 8)
    assert request.truncate_prompt_tokens == -1
    assert parse_embeddings(body(input="a", dimensions=None)).dimensions is None


@pytest.mark.parametrize("name", PARSERS)
def test_unknown_fields_are_refused_by_name_and_neutral_ones_accepted(name: str) -> None:
    parse, fields = PARSERS[name]

    parse(body(**fields, user="u", add_special_tokens=True, priority=0, truncation_side="right", normalize=None))
    for unknown, value in (
        ("frobnicate", 1),
        ("priority", 3),
        ("priority", False),
        ("add_special_tokens", False),
        ("messages", []),
    ):
        problem = refusal(parse, body(**fields, **{unknown: value}))
        assert (problem.param, problem.code) == (unknown, "unsupported_parameter")


def test_rerank_takes_texts_and_text_objects_and_all_documents_by_default() -> None:
    request = parse_rerank(body(query="q", documents=["a", {"text": "b"}], top_n=0))

    assert request.pairs == (("q", "a"), ("q", "b"))
    assert (request.top_n, request.return_documents) == (None, True)
    assert request.name_of(1) == "documents[1]"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": [{"text": ""}]}, "documents[0].text"),
        ({"documents": [{"text": "a", "image": "b"}]}, "documents[0].image"),
        ({"documents": ["a"] * (MAX_INPUTS + 1)}, "documents"),
        ({"top_n": -1}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
    ],
)
def test_what_rerank_refuses(fields: dict[str, Any], field: str) -> None:
    assert refusal(parse_rerank, body(**{"query": "q", "documents": ["a"], **fields})).param == field


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]
)
def test_score_pairs_one_with_many_or_as_many_under_all_names_of_vllm(names: tuple[str, str]) -> None:
    first, second = names

    assert parse_score(body(**{first: "q", second: ["a", "b"]})).pairs == (("q", "a"), ("q", "b"))
    assert parse_score(body(**{first: ["q"], second: "a"})).pairs == (("q", "a"),)
    both = parse_score(body(**{first: ["q", "r"], second: ["a", "b"]}))
    assert both.pairs == (("q", "a"), ("r", "b"))
    assert both.name_of(1) == f"{second}[1]"
    assert refusal(parse_score, body(**{first: ["q", "r"], second: ["a"]})).param == first
    assert refusal(parse_score, body(**{first: ["q"], second: ["a", ""]})).param == f"{second}[1]"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "text_1"),
        ({"text_1": "a"}, "text_2"),
        ({"text_1": "a", "data_2": "b"}, "text_1"),
        ({"text_1": "a", "text_2": "b", "documents": ["c"]}, "documents"),
        ({"queries": "a", "items": []}, "items"),
    ],
)
def test_what_score_refuses(fields: dict[str, Any], field: str) -> None:
    assert refusal(parse_score, body(**fields)).param == field


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), min_size=1))
def test_both_encodings_of_embeddings_carry_the_same_numbers(vectors: list[list[float]]) -> None:
    arrays = [array("f", vector) for vector in vectors]
    inputs = ["a"] * len(vectors)

    floats = orjson.loads(embeddings_answer(parse_embeddings(body(input=inputs)), arrays, 3))
    coded = orjson.loads(embeddings_answer(parse_embeddings(body(input=inputs, encoding_format="base64")), arrays, 3))

    assert [array("f", one["embedding"]) for one in floats["data"]] == arrays
    assert [array("f", base64.b64decode(one["embedding"])) for one in coded["data"]] == arrays
    assert [one["index"] for one in coded["data"]] == list(range(len(vectors)))
    assert coded["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (coded["object"], coded["model"], coded["data"][0]["object"]) == ("list", "m", "embedding")


def test_rows_of_numpy_are_written_in_few_digits_that_read_back_the_same() -> None:
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)

    answer = embeddings_answer(parse_embeddings(body(input=["a", "b"])), list(rows), 2)

    assert np.array_equal(np.array([one["embedding"] for one in orjson.loads(answer)["data"]], np.float32), rows)
    assert len(answer) < 16 * 14 + 250
    coded = embeddings_answer(parse_embeddings(body(input="a", encoding_format="base64")), rows[:1], 2)
    assert base64.b64decode(orjson.loads(coded)["data"][0]["embedding"]) == rows[0].tobytes()


def test_rerank_answers_the_best_first_and_no_more_than_asked() -> None:
    request = parse_rerank(body(query="q", documents=["a", "b", "c"], top_n=2))

    answer = orjson.loads(rerank_answer(request, [0.1, 0.9, 0.5], 7, "req-1"))

    assert answer == {
        "id": "rerank-req-1",
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "results": [
            {"index": 1, "document": {"text": "b"}, "relevance_score": 0.9},
            {"index": 2, "document": {"text": "c"}, "relevance_score": 0.5},
        ],
    }
    bare = parse_rerank(body(query="q", documents=["a"], return_documents=False))
    assert orjson.loads(rerank_answer(bare, [0.1], 1, "r"))["results"] == [{"index": 0, "relevance_score": 0.1}]


def test_scores_and_classes_are_answered_in_the_shape_of_vllm() -> None:
    score = orjson.loads(score_answer(parse_score(body(text_1="q", text_2="a")), [0.5], 4, "req-1", 1_700_000_000))
    classes = orjson.loads(
        classify_answer(parse_classify(body(input="a")), [("good", [0.25, 0.75])], 4, "req-1", 1_700_000_000)
    )

    head = {
        "object": "list",
        "created": 1_700_000_000,
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert score == {"id": "score-req-1", **head, "data": [{"index": 0, "object": "score", "score": 0.5}]}
    one = {"index": 0, "label": "good", "probs": [0.25, 0.75], "num_classes": 2}
    assert classes == {"id": "classify-req-1", **head, "data": [one]}


@pytest.mark.parametrize(
    ("parse", "fields", "field"),
    [
        (parse_rerank, {"query": "q" * 4400, "documents": ["d"] * 2000}, "documents"),
        (parse_score, {"text_1": "q" * 4400, "text_2": ["d"] * 2000}, "text_2"),
        (parse_score, {"text_1": ["q" * 4400] * 1000, "text_2": ["d"] * 1000}, "text_2"),
    ],
)
def test_a_small_body_cannot_ask_for_pairs_without_end(parse: Any, fields: dict[str, Any], field: str) -> None:
    error = refusal(parse, body(**fields))

    assert error.param == field
    assert f"at most {MAX_PAIR_CHARS} characters" in error.message


def test_a_text_that_stands_in_several_pairs_is_counted_for_each() -> None:
    assert parse_rerank(body(query="abc", documents=["d", "ee", "f"])).repeated_chars == 6
    assert parse_score(body(text_1="abc", text_2=["d", "ee", "f"])).repeated_chars == 6
    assert parse_score(body(text_1=["abc", "d"], text_2=["e", "f"])).repeated_chars == 0
    assert parse_embeddings(body(input=["abc", "d"])).repeated_chars == 0
