"""How many tokens, turns or seconds are drawn."""

from math import exp
from statistics import fmean, median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cotenant_loadtests.amounts import drawer, whole_drawer
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.spec_values import Amounts

AMOUNTS: TypeAdapter[Any] = TypeAdapter(Amounts)


def numbers(count: int, given: Any, *, whole: bool = True, lowest: int = 1) -> list[float]:
    amount, source = AMOUNTS.validate_python(given), Source(1, "amount")
    draw = whole_drawer(amount, source, lowest) if whole else drawer(amount, source)
    return [draw() for _ in range(count)]


def test_a_number_is_always_that_number() -> None:
    assert numbers(3, 200) == [200, 200, 200]
    assert numbers(2, 0.25, whole=False) == [0.25, 0.25]


def test_lognormal_has_its_median_and_its_sigma() -> None:
    drawn = sorted(numbers(10_001, {"distribution": "lognormal", "median": 500, "sigma": 0.8}))
    assert median(drawn) == pytest.approx(500, rel=0.06)
    assert drawn[int(0.8413 * len(drawn))] == pytest.approx(500 * exp(0.8), rel=0.06)


def test_exponential_has_its_mean() -> None:
    drawn = numbers(10_000, {"distribution": "exponential", "mean": 3}, whole=False)
    assert fmean(drawn) == pytest.approx(3, rel=0.06)


def test_whole_numbers_of_a_uniform_include_both_ends_each_as_often() -> None:
    drawn = numbers(6000, {"distribution": "uniform", "min": 2, "max": 4})
    assert {number: drawn.count(number) for number in (2, 3, 4)} == {
        number: pytest.approx(2000, abs=250) for number in (2, 3, 4)
    }


@pytest.mark.parametrize("distribution", ["lognormal", "exponential"])
@given(low=st.integers(1, 50), more=st.integers(0, 50))
def test_draws_are_cut_to_their_bounds(distribution: str, low: int, more: int) -> None:
    shape = {"median": 30, "sigma": 2} if distribution == "lognormal" else {"mean": 30}
    drawn = numbers(50, {"distribution": distribution, "min": low, "max": low + more, **shape})
    assert all(low <= number <= low + more for number in drawn)


def test_tokens_are_whole_and_at_least_one() -> None:
    drawn = numbers(200, {"distribution": "exponential", "mean": 0.2})
    assert set(map(type, drawn)) == {int}
    assert min(drawn) == 1
