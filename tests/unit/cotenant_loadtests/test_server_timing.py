"""Phases that a server tells, whatever it sends as such."""

import pytest

from cotenant_loadtests.event_stream import EventStream
from cotenant_loadtests.server_timing import MAX_CHARS, timing_phases, timing_text


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("queue;dur=12.5, engine;dur=20", [("queue", 12.5), ("engine", 20.0)]),
        ('db;desc="a b";dur=3, cache', [("db", 3.0)]),
        ("a;dur=0, b;DUR=1", [("b", 1.0)]),
        ("total;dur=nan, x;dur=-1, ;dur=4", []),
        ("", []),
    ],
)
def test_phases_with_a_length_are_read_in_their_order(text: str, phases: list[tuple[str, float]]) -> None:
    assert timing_phases(timing_text(text.encode())) == phases


def test_what_is_kept_is_bounded_and_plain() -> None:
    kept = timing_text(b"\x1b[31m\xff" + b"a" * 10_000)

    assert len(kept) == MAX_CHARS
    assert kept.startswith("??31m?")
    assert len(timing_phases("a;dur=1," * 1000)) == 12


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_comment_in_a_stream_tells_it_wherever_the_bytes_are_cut(cut: int) -> None:
    events, sent = EventStream(), b": waiting\n\n: server-timing load;dur=5\n\ndata: {}\n\n"

    data = events.feed(sent[:cut]) + events.feed(sent[cut:])

    assert (data, events.server_timing) == ([None, None, b"{}"], b"load;dur=5")
