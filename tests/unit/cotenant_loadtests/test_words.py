"""Text of a known number of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.planned import Message, Segment
from cotenant_loadtests.words import WORDS, Texts, segment_text, text_of

SEEDS = st.integers(0, 2**53 - 1)


def test_the_list_has_512_short_words_that_json_leaves_as_they_are() -> None:
    assert len(set(WORDS)) == len(WORDS) == 512
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 7 for word in WORDS)


@given(SEEDS, st.integers(1, 600))
def test_a_segment_has_as_many_words_as_tokens(seed: int, tokens: int) -> None:
    words = segment_text(seed, tokens).split(" ")
    assert len(words) == tokens
    assert set(words) <= set(WORDS)


@given(SEEDS, st.integers(1, 300), st.integers(0, 300))
def test_a_longer_segment_begins_with_the_shorter_one_of_its_seed(seed: int, tokens: int, more: int) -> None:
    assert segment_text(seed, tokens + more).split()[:tokens] == segment_text(seed, tokens).split()


def test_different_seeds_say_different_things() -> None:
    assert len({segment_text(seed, 8) for seed in range(1000)}) == 1000


def test_a_long_text_uses_every_word() -> None:
    assert set(segment_text(1, 20_000).split()) == set(WORDS)


def test_what_is_kept_of_long_texts_is_bounded_by_their_length() -> None:
    texts = Texts(most_tokens=1000)
    for seed in range(50):
        assert texts.text(seed, 300) == segment_text(seed, 300)
        assert texts.used_tokens <= 1000
    assert len(texts.text(1, 5000).split()) == 5000
    assert 0 < texts.used_tokens <= 1000


def test_what_was_asked_for_lately_is_kept() -> None:
    texts = Texts(most_tokens=1000)
    often = texts.text(0, 300)
    for seed in range(1, 50):
        texts.text(seed, 300)
        assert texts.text(0, 300) is often


def test_a_message_is_its_segments_one_after_the_other_or_its_text() -> None:
    first, second = Segment(1, 3), Segment(2, 2)
    both = text_of(Message("user", (first, second)))
    assert both == text_of(Message("user", (first,))) + " " + text_of(Message("user", (second,)))
    assert text_of(Message("user", text="What?  And why?")) == "What?  And why?"
