"""No body passes that another reader of JSON would read differently, nor one that takes long to read."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.oip_api import parse_infer
from cotenant_serving.openai_api import parse_chat, parse_completion
from cotenant_serving.pooling_api import parse_classify, parse_embeddings, parse_rerank, parse_score
from cotenant_serving.request_fields import MAX_DEPTH, MAX_STRUCTURE, RequestError, json_object

PARSERS = (
    parse_chat,
    parse_completion,
    parse_embeddings,
    parse_rerank,
    parse_score,
    parse_classify,
    lambda body: parse_infer(body, None),
)
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def refusal(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        json_object(body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model": "a", "model": "b"}', "model"),
        (b'{"model":"a","model":"a"}', "model"),
        (b'{"model":"a","mod\\u0065l":"b"}', "model"),
        (b'{"a":1,"messages":[{"role":"user","content":"x","content":"y"}]}', "content"),
        (b'{"metadata":{"x":{"k":1,"k":2}},"a":1e15}', "k"),
        (b'{"":1,"":2}', None),
        (b'{"a\\"":1,"a\\u0022":2}', 'a"'),
        (b'{"model":"a","model":"\\u0022","b":"\\\\u0022\\u0022"}', "model"),
        (b'{"a":"\\\\\\u0022","model":"a","model":"b"}', "model"),
        (b'{"tokens":[1,2],"tokens":null}', "tokens"),
    ],
)
def test_a_key_that_is_given_twice_is_named(body: bytes, key: str | None) -> None:
    problem = refusal(body)

    assert (problem.status, problem.code, problem.param) == (400, "invalid_json", key)
    assert "twice" in problem.message


@pytest.mark.parametrize("parse", PARSERS)
def test_no_route_takes_two_models(parse: Any) -> None:
    body = b'{"model": "mine", "input": "x", "prompt": "x", "model": "theirs"}'

    with pytest.raises(RequestError, match="'model' twice"):
        parse(body)


def test_a_key_given_twice_far_into_a_long_body_is_refused_without_its_name() -> None:
    problem = refusal(b'{"prompt":"' + b"x" * 100_000 + b'","a":1,"a":1}')

    assert (problem.status, problem.param) == (400, None)


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """A string of JSON that means `text`, in any spelling."""
    pieces = []
    for char in text:
        units = char.encode("utf-16-be")
        long = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        plain = [char] if char not in '"\\' and char >= " " else []
        pieces.append(draw(st.sampled_from([*plain, long, *([SHORT[char]] if char in SHORT else [])])))
    return f'"{"".join(pieces)}"'


TEXTS = st.text(st.sampled_from('ab"\\/u02:{[,\n\x7f\u00e9\u2028\U0001f600'), max_size=8)
SPACES = st.sampled_from(["", "", " ", "\n\t"])
NUMBERS = st.sampled_from(["0", "-1", "1e15", "1.0", "1E-7", "123456789012345678901"])
ATOMS = st.sampled_from(["null", "true", "false"]) | NUMBERS | TEXTS.flatmap(spelled)


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(TEXTS.flatmap(spelled), values), max_size=4))
    gap = draw(SPACES)
    return "{" + ",".join(f"{gap}{key}{gap}:{gap}{value}" for key, value in members) + gap + "}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    gap = draw(SPACES)
    return "[" + f"{gap},".join(draw(st.lists(values, max_size=4))) + gap + "]"


def repeats_a_key(text: str) -> bool:
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)

    json.loads(text, object_pairs_hook=look)
    return found


@given(objects(st.recursive(ATOMS, lambda inner: objects(inner) | arrays(inner), max_leaves=12)))
def test_in_every_spelling_repeated_keys_are_refused_and_nothing_else_is(text: str) -> None:
    body = text.encode()

    if repeats_a_key(text):
        assert refusal(body).status == 400
    else:
        assert json_object(body) == orjson.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "a"}'.encode("utf-16"),
        b"\xef\xbb\xbf" + b'{"model": "a"}',
        b'{"model": "\xff"}',
        b'{"model": "\xed\xa0\x80"}',
        b'{"model": "\\ud83d"}',
        b'{"model": "\\ude00\\ud83d"}',
        b'{"max_tokens": NaN}',
        b'{"max_tokens": -Infinity}',
        b'{"max_tokens": 1e400}',
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
        b'{"model": "a\nb"}',
        b'{"model": "a",}',
        b"{'model': 'a'}",
        b'{"model": "a"} // comment',
        b'{"model": "a"}\x00',
    ],
)
def test_what_only_some_readers_take_is_no_json(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize("opened", [b'{"a":', b"["])
def test_nesting_is_bounded(opened: bytes) -> None:
    closed = {b"[": b"]", b'{"a":': b"}"}[opened]

    def nested(depth: int) -> bytes:
        return b'{"x":' + opened * depth + b"1" + closed * depth + b"}"

    json_object(nested(MAX_DEPTH - 1))
    assert refusal(nested(MAX_DEPTH)).status == 400
    assert refusal(nested(100_000)).status == 400


@pytest.mark.parametrize("unit", [b"{}", b"[]", b'{"a":1}', b"[[]]"])
def test_more_structure_than_is_read_in_one_go_is_refused(unit: bytes) -> None:
    problem = refusal(b'{"metadata":[' + b",".join([unit] * (MAX_STRUCTURE + 1)) + b"]}")

    assert f"more than {MAX_STRUCTURE} arrays, objects and fields" in problem.message


def test_brackets_in_strings_are_text_however_many() -> None:
    text = '[{":\\' * 100_000 + '"'

    assert json_object(orjson.dumps({"prompt": text, "stop": [text[:9]] * 9}))["prompt"] == text


def test_a_list_of_a_hundred_thousand_messages_is_refused() -> None:
    messages = b",".join([b'{"role":"user","content":"hi"}'] * 100_000)

    with pytest.raises(RequestError, match="arrays, objects and fields") as caught:
        parse_chat(b'{"model":"a","messages":[' + messages + b"]}")
    assert caught.value.status == 400


@pytest.mark.parametrize("count", [2049, 20_000])
def test_a_shorter_list_of_too_many_messages_is_refused_by_its_count(count: int) -> None:
    messages = b",".join([b'{"role":"user","content":"hi"}'] * count)

    with pytest.raises(RequestError, match=f"'messages' is .{count} messages.; it must be at most 2048"):
        parse_chat(b'{"model":"a","messages":[' + messages + b"]}")
