"""What all request bodies have in common: mistakes are named by their field."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.oip_api import parse_infer
from cotenant_serving.openai_api import parse_chat
from cotenant_serving.pooling_api import parse_classify, parse_embeddings, parse_rerank, parse_score
from cotenant_serving.request_fields import RequestError, json_object, refuse_unknown, whole


def parse_infer_json(body: bytes) -> Any:
    return parse_infer(body, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"input": ["a", NaN]}', "input[1]"),
        (b'{"input": [1, 1e999]}', "input[1]"),
        (b'{"inputs": [{"name": "a,]}"}, {"data": [[1, 2], [3, -Infinity]]}]}', "inputs[1].data[1][1]"),
        (b'{"a\\"b": {"c": nan}}', 'a\\"b.c'),
        (b'{"a": [1, 2], "b": [', "b[0]"),
    ],
)
def test_a_value_that_is_not_json_is_named(body: bytes, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        json_object(body)

    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_json", field)
    assert f"in '{field}'" in caught.value.message


@pytest.mark.parametrize(
    "body", [b"", b"[", b"]", b"nan", b'"a', b"[]", b"null", b"{} {}", b"\xff", b'{"a": "\\ud800"}']
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        json_object(body)

    assert caught.value.code == "invalid_json"


def test_a_mistake_far_into_the_body_is_named_by_its_position() -> None:
    with pytest.raises(RequestError) as caught:
        json_object(b'{"input": [' + b"1," * 200_000 + b"NaN]}")

    assert caught.value.param is None
    assert "char 400011" in caught.value.message


def test_a_long_string_that_does_not_end_takes_no_quadratic_time() -> None:
    with pytest.raises(RequestError):
        json_object(b'{"a": "' + b'\\"' * 100_000)


@pytest.mark.parametrize(
    ("value", "found"),
    [(7, 7), (2.0, 2), (-1, -1), (True, None), (1.5, None), ("1", None), (2**53 - 1, 2**53 - 1), (2**53, None)],
)
def test_an_integer_is_what_json_schema_calls_one(value: object, found: int | None) -> None:
    assert whole(value) == found


def test_fields_that_change_nothing_pass_and_true_is_not_one() -> None:
    refuse_unknown({"a": 1, "b": None, "c": 1.0}, frozenset({"a"}), neutral={"c": (1,)})
    for fields in ({"c": True}, {"c": 2}, {"d": 1}):
        with pytest.raises(RequestError) as caught:
            refuse_unknown(fields, frozenset({"a"}), neutral={"c": (1,)}, prefix="x.")
        assert caught.value.param == f"x.{next(iter(fields))}"


@given(
    st.integers(1, 1000), st.sampled_from(["input", "model", "user", "dimensions", "inputs", "documents", "stream"])
)
def test_a_value_that_is_nested_however_deeply_is_a_400(depth: int, field: str) -> None:
    body = b'{"%s": %s}' % (field.encode(), b"[" * depth + b"1" + b"]" * depth)
    for parse in (parse_chat, parse_embeddings, parse_rerank, parse_score, parse_classify, parse_infer_json):
        with pytest.raises(RequestError) as caught:
            parse(body)
        assert caught.value.status == 400
