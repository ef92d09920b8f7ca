"""What the gateway reads quickly is what it would read thoroughly."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotenant_serving.openai_api import MAX_MESSAGES, RequestError, parse_chat, parse_completion
from cotenant_serving.request_fields import LARGE_BYTES
from cotenant_serving.usual_requests import Asked, usual_chat, usual_completion

SAID = {"role": "user", "content": "Hi"}
USUAL: dict[str, Any] = {
    "model": "a/b", "messages": [{"role": "system", "content": "Say \"yes\""}, SAID], "max_tokens": 5,
    "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True}, "stop": ["x"], "top_p": 1,
    "top_k": 0, "user": "u", "n": 1,
}  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 2.0, 0.5, 1e300, 2**53, 2**53 - 1, -0.0, True, None, "1"])
TEXTS = st.text(max_size=4) | st.sampled_from(['"', '\\"', "\\u0022", "é", "\U0001f600", ""])
MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "assistant", "developer", "tool", 1]), "content": TEXTS | NUMBERS}
)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("a/b") | TEXTS},
    optional={
        "messages": st.lists(MESSAGE, max_size=3) | st.just([SAID]),
        "prompt": TEXTS | st.lists(NUMBERS, max_size=2),
        "stream": st.booleans() | NUMBERS,
        "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | NUMBERS}) | NUMBERS,
        "stop": TEXTS | st.lists(TEXTS, max_size=5) | NUMBERS,
        "user": TEXTS | NUMBERS,
        **dict.fromkeys(
            ["max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n", "seed"], NUMBERS
        ),
    },
)
KINDS = [(usual_chat, parse_chat), (usual_completion, parse_completion)]


def agree(body: bytes) -> None:
    for usual, parse in KINDS:
        asked = usual(body)
        if asked is not None:
            try:
                request = parse(body)
            except RequestError as problem:
                raise AssertionError(f"{body!r} is taken, and is wrong: {problem.message}") from None
            assert asked == (request.model, request.stream, request.sampling.max_tokens), body


@given(FIELDS, st.booleans())
@settings(max_examples=400)
def test_what_is_taken_for_usual_is_right_and_reads_the_same(fields: dict[str, Any], spelled: bool):
    agree(json.dumps(fields, ensure_ascii=spelled).encode(errors="surrogatepass"))


@given(st.data())
@settings(max_examples=400)
def test_so_is_a_usual_text_with_pieces_of_it_changed_or_said_twice(data: st.DataObject):
    body = json.dumps(USUAL).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(begin, min(len(body), begin + 40)))
        put = data.draw(
            st.sampled_from(
                [b"", body[begin:end] * 2, b'"', b"\\", b"\\u0022", b",", b":", b"1", b"\xff", b"\n", b"}"]
            )
            | st.binary(max_size=2)
        )
        body = body[:begin] + put + body[end:]
    agree(body)


def test_usual_requests_are_taken_without_the_thorough_checks():
    assert usual_chat(json.dumps(USUAL).encode()) == Asked("a/b", True, 5)
    assert usual_chat(json.dumps({"model": "m", "messages": [SAID]}).encode()) == Asked("m", False, None)
    assert usual_chat(json.dumps({"model": "m", "messages": [SAID], "max_completion_tokens": 7}).encode()) is not None
    assert usual_completion(b'{"prompt":"\\u00e9 \\" \\\\","model":"m"}') == Asked("m", False, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","\\u006dodel":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"x","content":"y"}]}',
        b'{"model":"a","max_tokens":1,"max_tokens":1,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","n":1,"n":1,"messages":[{"role":"user","content":"\\u0022\\u0022"}]}',
        b'{"model":"a","stream":true,"stream_options":{"include_usage":true},"stream_options":{},'
        b'"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"\\ud800\\u0041"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"tools":[]}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"stream_options":{"include_usage":true}}',
        json.dumps({"model": "m", "messages": [SAID] * (MAX_MESSAGES + 1)}).encode(),
        json.dumps({"model": "m", "messages": [{**SAID, "content": "x" * LARGE_BYTES}]}).encode(),
    ],
)
def test_the_thorough_checks_judge_what_is_given_twice_or_large_or_not_known_here(body: bytes):
    assert usual_chat(body) is None
