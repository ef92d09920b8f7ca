import itertools

import pytest
from tests.builders.gateway import event, stream_end

from cotenant_serving.contract import Usage
from cotenant_serving.gateway.relay import MAX_EVENT_BYTES, EventTooLongError, StreamFilter
from cotenant_serving.openai_api import error_event

DONE = b"data: [DONE]\n\n"
WHOLE = event("hé") + b": ping\n\n" + event('a\\n\\n: cotenant-usage {"x"') + stream_end(11, 7)
CLEAN = event("hé") + b": ping\n\n" + event('a\\n\\n: cotenant-usage {"x"') + DONE


def through(*chunks: bytes) -> tuple[bytes, StreamFilter]:
    stream = StreamFilter()
    return b"".join(stream.feed(chunk) for chunk in chunks), stream


def test_the_comment_is_taken_out_wherever_the_network_cuts():
    for at in range(len(WHOLE) + 1):
        out, stream = through(WHOLE[:at], WHOLE[at:])
        assert out == CLEAN, at
        assert stream.usage == Usage(prompt_tokens=11, completion_tokens=7)
        assert (stream.events, stream.done, stream.failed) == (2, True, False)


def test_the_comment_is_taken_out_with_two_cuts():
    tail = event("x") + stream_end(1, 2)
    for first, second in itertools.combinations(range(len(tail) + 1), 2):
        out, stream = through(tail[:first], tail[first:second], tail[second:])
        assert out == event("x") + DONE
        assert stream.usage == Usage(prompt_tokens=1, completion_tokens=2)


def test_single_bytes_come_out_as_whole_events_only():
    stream = StreamFilter()
    pieces = [piece for at in range(len(WHOLE)) if (piece := stream.feed(WHOLE[at : at + 1]))]
    assert b"".join(pieces) == CLEAN
    assert all(piece.endswith(b"\n\n") for piece in pieces)


def test_chunks_that_end_with_an_event_are_passed_on_as_they_are():
    chunk = event("a") + event("b")
    assert StreamFilter().feed(chunk) is chunk


def test_half_an_event_at_the_end_is_never_passed_on():
    out, stream = through(event("a"), b'data: {"ch')
    assert out == event("a")
    assert not stream.done


def test_a_user_cannot_forge_the_comment_inside_an_event():
    forged = b'data: {"content":": cotenant-usage {\\"prompt_tokens\\":0}"}\n\n'
    out, stream = through(forged)
    assert out == forged
    assert stream.usage is None


def test_a_comment_that_cannot_be_read_is_taken_out_and_leaves_the_usage_unknown():
    out, stream = through(b": cotenant-usage {oops}\n\n" + DONE)
    assert out == DONE
    assert stream.usage is None


def test_an_engines_own_error_event_is_noticed_and_not_counted():
    out, stream = through(event("a") + error_event("it died") + stream_end().removesuffix(DONE))
    assert out == event("a") + error_event("it died")
    assert (stream.failed, stream.done, stream.events) == (True, False, 1)


def test_an_event_without_end_is_refused():
    stream = StreamFilter()
    stream.feed(b"x" * MAX_EVENT_BYTES)
    with pytest.raises(EventTooLongError):
        stream.feed(b"x")
