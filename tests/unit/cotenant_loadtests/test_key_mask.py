from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.key_mask import WINDOW_BYTES, KeyMask

KEY = "sk-0123/456789abcdefgh+XYZ"
PARTS = st.tuples(st.integers(0, len(KEY)), st.integers(0, len(KEY)))


@given(PARTS, st.text("skX/ \u00e9"), st.text("yz8 \u00e9"))
def test_any_twelve_characters_of_a_key_are_known(part: tuple[int, int], before: str, after: str) -> None:
    said = before + KEY[part[0] : part[1]] + after
    windows = [KEY[start : start + WINDOW_BYTES] for start in range(len(KEY) - WINDOW_BYTES + 1)]
    assert KeyMask(KEY).hides(said.encode()) == any(window in said for window in windows)


def test_each_part_of_twelve_characters_is_known() -> None:
    starts = range(len(KEY) - WINDOW_BYTES + 1)
    assert all(KeyMask(KEY).hides(b"request-" + KEY[start : start + 12].encode()) for start in starts)
    assert not any(KeyMask(KEY).hides(KEY[start : start + 11].encode()) for start in range(len(KEY)))


def test_a_short_key_is_known_whole() -> None:
    assert KeyMask("secret").hides(b"the-secret-7")
    assert not KeyMask("secret").hides(b"the-secre")


def test_no_key_is_in_nothing() -> None:
    assert not KeyMask("").hides(b"request-7")
