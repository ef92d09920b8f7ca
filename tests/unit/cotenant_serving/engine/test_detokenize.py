"""Text leaves the engine only when nothing that follows can change it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.engine.detokenize import StopMatcher, TextDecoder


def byte_decode(ids: Sequence[int]) -> str:
    """A byte-level tokenizer: one id per byte."""
    return bytes(ids).decode("utf-8", errors="replace")


def byte_fallback_decode(ids: Sequence[int]) -> str:
    """Byte-fallback as in Llama's tokenizers: a run that is not UTF-8 as a whole becomes U+FFFD for each byte."""
    data = bytes(ids)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(data)


def stream(decoder: TextDecoder, ids: Sequence[int]) -> list[str]:
    return [*(decoder.push([token]) for token in ids), decoder.finish()]


@given(st.text())
def test_pieces_of_any_text_join_to_the_text(text: str) -> None:
    assert "".join(stream(TextDecoder(byte_decode), text.encode())) == text


@given(st.binary(max_size=60))
def test_pieces_of_arbitrary_bytes_join_to_what_decoding_at_once_gives(data: bytes) -> None:
    assert "".join(stream(TextDecoder(byte_decode), data)) == byte_decode(data)


@given(st.text(alphabet="aé你🙂 ", max_size=12))
def test_no_piece_shows_half_a_character(text: str) -> None:
    assert "\ufffd" not in "".join(stream(TextDecoder(byte_decode), text.encode())[:-1])


def test_an_unfinished_character_is_held_until_its_last_byte() -> None:
    assert stream(TextDecoder(byte_decode), "a🙂b".encode()) == ["a", "", "", "", "🙂", "b", ""]


def test_a_character_cut_off_by_the_end_shows_as_a_replacement() -> None:
    assert stream(TextDecoder(byte_decode), "a🙂".encode()[:3])[-1] == "\ufffd"


def test_byte_fallback_does_not_break_a_character_that_is_out_already() -> None:
    assert stream(TextDecoder(byte_fallback_decode), "你好".encode()) == ["", "", "你", "", "", "好", ""]


def test_a_word_is_decoded_with_its_neighbours() -> None:
    words = ["Hello", "world", "again"]
    decoder = TextDecoder(lambda ids: " ".join(words[index] for index in ids))
    assert [decoder.push([0]), decoder.push([1]), decoder.push([2])] == ["Hello", " world", " again"]


def test_the_window_stays_small_over_a_long_answer() -> None:
    sizes: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        sizes.append(len(ids))
        return byte_decode(ids)

    stream(TextDecoder(decode), b"x" * 1000)
    assert max(sizes) <= 4


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["one END two"], "one "),
        (["END"], ["one E", "N", "D two"], "one "),
        (["END"], ["one E", "N", "G"], "one ENG"),
        (["aab"], ["a", "a", "a", "b", "c"], "a"),
        (["abcd", "bc"], ["abcd"], "a"),
        (["\n\n"], ["a\n", "b\n", "\nc"], "a\nb"),
        ([], ["all", " of it"], "all of it"),
    ],
)
def test_text_ends_before_the_stop_string(stops: list[str], pieces: list[str], expected: str) -> None:
    matcher = StopMatcher(stops)
    assert "".join([*map(matcher.push, pieces), matcher.finish()]) == expected


def test_nothing_that_may_begin_a_stop_string_is_sent_early() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("go ST") == "go "
    assert matcher.push("AY") == "STAY"
    assert not matcher.matched


def test_nothing_comes_after_a_match() -> None:
    matcher = StopMatcher(["x"])
    assert (matcher.push("axb"), matcher.push("more"), matcher.finish()) == ("a", "", "")
    assert matcher.matched


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_the_cut_into_pieces_does_not_matter(text: str, stops: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    whole, parts = StopMatcher(stops), StopMatcher(stops)
    at_once = whole.push(text) + whole.finish()
    in_two = parts.push(text[:cut]) + parts.push(text[cut:]) + parts.finish()
    assert (at_once, whole.matched) == (in_two, parts.matched)
