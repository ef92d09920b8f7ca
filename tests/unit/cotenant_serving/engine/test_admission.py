"""Requests enter the KV cache by whole pages, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.engine.admission import PageLedger


def test_tokens_are_rounded_up_to_pages() -> None:
    ledger = PageLedger(pages=3, page_tokens=32)
    ledger.enqueue("a", 33)
    assert ledger.admit() == ["a"]
    assert ledger.free_pages == 1


def test_a_request_waits_until_its_pages_are_free() -> None:
    ledger = PageLedger(pages=2, page_tokens=32)
    ledger.enqueue("a", 40)
    ledger.enqueue("b", 40)
    assert ledger.admit() == ["a"]
    ledger.release("a")
    assert ledger.admit() == ["b"]


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    ledger = PageLedger(pages=4, page_tokens=32)
    ledger.enqueue("running", 96)
    assert ledger.admit() == ["running"]
    ledger.enqueue("large", 128)
    ledger.enqueue("small", 1)
    assert ledger.admit() == []
    ledger.release("running")
    assert ledger.admit() == ["large"]


def test_one_that_leaves_the_queue_lets_the_next_in() -> None:
    ledger = PageLedger(pages=2, page_tokens=32)
    ledger.enqueue("a", 32)
    ledger.admit()
    ledger.enqueue("b", 64)
    ledger.enqueue("c", 32)
    ledger.release("b")
    assert ledger.admit() == ["c"]


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens need 3 pages, the KV cache has 2"):
        PageLedger(pages=2, page_tokens=32).enqueue("a", 65)


@given(st.lists(st.tuples(st.integers(1, 200), st.booleans()), max_size=40))
def test_the_cache_is_never_overbooked_and_everyone_gets_in(requests: list[tuple[int, bool]]) -> None:
    ledger, inside, entered = PageLedger(pages=8, page_tokens=32), [], []
    for index, (tokens, one_ends) in enumerate(requests):
        ledger.enqueue(str(index), tokens)
        inside += ledger.admit()
        assert ledger.free_pages >= 0
        if one_ends and inside:
            entered.append(inside.pop(0))
            ledger.release(entered[-1])
    for _ in requests:
        inside += ledger.admit()
        if inside:
            entered.append(inside.pop(0))
            ledger.release(entered[-1])
    assert entered == [str(index) for index in range(len(requests))]
    assert ledger.free_pages == 8
