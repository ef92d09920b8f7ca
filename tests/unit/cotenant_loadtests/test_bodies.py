"""A planned request → path and bytes."""

import json
from typing import Any

import pytest

from cotenant_loadtests.bodies import render, request_path
from cotenant_loadtests.planned import Message, Planned, Segment, Tensor
from cotenant_loadtests.words import segment_text

USER = Message("user", (Segment(7, 3),))


def planned(**fields: Any) -> Planned:
    given: dict[str, Any] = {"id": 0, "at_s": 0.0, "stream": "s", "tenant": "t", "model": "m", "api": "chat"}
    return Planned(**given | {"messages": (USER,)} | fields)


def test_a_chat_has_its_messages_its_output_length_and_asks_for_events_with_usage() -> None:
    system = Message("system", text='say "yes"')
    body = render(planned(messages=(system, USER), max_tokens=9, streamed=True, include_usage=True))
    words = segment_text(7, 3)
    assert body.decode() == (
        '{"model":"m","messages":[{"role":"system","content":"say \\"yes\\""},'
        f'{{"role":"user","content":"{words}"}}],"max_tokens":9,"stream":true,"stream_options":{{"include_usage":true}}}}'
    )


def test_a_request_that_is_not_streamed_names_no_stream() -> None:
    assert "stream" not in json.loads(render(planned(max_tokens=9, include_usage=True)))


def test_a_completion_has_its_prompt() -> None:
    body = json.loads(render(planned(api="completions", max_tokens=2, streamed=True)))
    assert body == {"model": "m", "prompt": segment_text(7, 3), "max_tokens": 2, "stream": True}


def test_embeddings_have_a_list_of_inputs() -> None:
    other = Message("user", (Segment(8, 2),))
    body = json.loads(render(planned(api="embeddings", messages=(USER, other))))
    assert body == {"model": "m", "input": [segment_text(7, 3), segment_text(8, 2)]}


def test_further_fields_of_the_body_come_last_in_their_own_order() -> None:
    body = render(planned(max_tokens=2, body={"top_p": 1.0, "ignore_eos": True, "a": [None]}))
    assert body.endswith(b'"max_tokens":2,"top_p":1.0,"ignore_eos":true,"a":[null]}')


@pytest.mark.parametrize(
    ("datatype", "kind", "low", "high"),
    [
        ("BOOL", bool, False, True),
        ("UINT8", int, 0, 255),
        ("INT8", int, -128, 127),
        ("INT64", int, -128, 127),
        ("FP32", float, -1, 1),
        ("FP64", float, -1, 1),
    ],
)
def test_a_tensor_has_values_of_its_type_drawn_from_its_seed(datatype: str, kind: type, low: int, high: int) -> None:
    request = planned(
        api="oip", messages=(), tensors=(Tensor("x", datatype, (4, 50), 3), Tensor("y", "INT8", (1,), 4))
    )
    first, second = json.loads(render(request))["inputs"]
    assert (first["name"], first["datatype"], first["shape"]) == ("x", datatype, [4, 50])
    assert len(first["data"]) == 200
    assert len(second["data"]) == 1
    assert all(type(value) is kind and low <= value <= high for value in first["data"])
    assert len(set(first["data"])) > 1


@pytest.mark.parametrize(
    ("api", "model", "path"),
    [
        ("chat", "team/chat", "/v1/chat/completions"),
        ("completions", "m", "/v1/completions"),
        ("embeddings", "m", "/v1/embeddings"),
        ("oip", "team/numbers", "/v2/models/team/numbers/infer"),
        ("oip", "a b?#%ü", "/v2/models/a%20b%3F%23%25%C3%BC/infer"),
    ],
)
def test_the_path_is_that_of_the_api(api: str, model: str, path: str) -> None:
    assert request_path(planned(api=api, model=model)) == path
