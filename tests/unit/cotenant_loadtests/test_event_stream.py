"""Events come out whole, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.event_stream import MAX_EVENT_BYTES, EventStream, EventTooLargeError, NotAnEventError

LINES = st.lists(
    st.sampled_from([b"data: {}", b"data:x", b"data: a b", b": comment", b"event: message", b"id: 1", b"", b"data"]),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def read(pieces: list[bytes]) -> list[bytes | None]:
    stream = EventStream()
    return [event for piece in pieces for event in stream.feed(piece)] + stream.end()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(LINES, ENDS, st.lists(st.integers(0, 1000), max_size=8))
def test_cuts_change_nothing(lines: list[bytes], end: bytes, places: list[int]) -> None:
    data = b"".join(line + end for line in lines)
    assert read(cut(data, places)) == read([data])


@given(LINES, ENDS)
def test_all_ends_of_lines_mean_the_same(lines: list[bytes], end: bytes) -> None:
    assert read([b"".join(line + end for line in lines)]) == read([b"".join(line + b"\n" for line in lines)])


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\ndata: 2\n\n", [b"1\n2"]),
        (b"data:1\n\n", [b"1"]),
        (b"data:  1\n\n", [b" 1"]),
        (b": only a comment\n\n", [None]),
        (b"data: 1\n: afterwards\n\n", [b"1", None]),
        (b": before\ndata: 1\n\n", [b"1"]),
        (b"data: 1\n\nevent: more", [b"1", None]),
        (b"\n\n\ndata: 1\n\n\n\n", [b"1"]),
        (b"event: x\nid: 3\nretry: 5\ndata: 1\n\n", [b"1"]),
        (b"data: [DONE]\n", [b"[DONE]"]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(data: bytes, events: list[bytes | None]) -> None:
    assert read([data]) == events


@pytest.mark.parametrize("place", [b"%b\n\ndata: 1\n\n", b"data: 1\n\n%b\n\n", b"data: 1\n%b\n\n", b"data: 1\n\n%b"])
def test_a_comment_between_engine_and_gateway_is_known_anywhere(place: bytes) -> None:
    for comment, leaked in ((b": cotenant-usage {}", True), (b": waiting", False), (b"id: cotenant-usage", False)):
        stream = EventStream()
        stream.feed(place % comment)
        stream.end()
        assert stream.leaked == leaked


@pytest.mark.parametrize("line", [b"hello\n\n", b"<html>\n\n", b"Data: 1\n\n", b"data: 1\nelse: 2\n\n"])
def test_a_line_without_a_field_of_events_is_none(line: bytes) -> None:
    with pytest.raises(NotAnEventError):
        EventStream().feed(line)


def test_an_event_that_never_ends_is_given_up() -> None:
    stream, piece = EventStream(), b"x" * 1024
    for _ in range(MAX_EVENT_BYTES // len(piece)):
        stream.feed(piece)
    with pytest.raises(EventTooLargeError):
        stream.feed(b"x")


def test_an_event_that_is_too_large_is_given_up_when_it_comes_at_once() -> None:
    with pytest.raises(EventTooLargeError):
        EventStream().feed(b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n")
