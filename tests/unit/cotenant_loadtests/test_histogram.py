import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.histogram import (
    HIGHEST_US,
    Histogram,
    curve_ms,
    histogram_of,
    merge,
    quantiles_ms,
)
from cotenant_loadtests.ranks import nearest_rank

values_us = st.lists(st.integers(0, HIGHEST_US) | st.integers(0, 5_000), max_size=200)
some_values_us = st.lists(st.integers(0, HIGHEST_US) | st.integers(0, 5_000), min_size=1, max_size=200)


def recorded(values: list[int]) -> Histogram:
    return histogram_of(np.array(values, np.int64))


def same(one: Histogram, other: Histogram) -> bool:
    counts = one.counts.tolist() == other.counts.tolist()
    return counts and replace(one, counts=other.counts) == other


@given(some_values_us, st.floats(0, 100))
def test_a_percentile_is_within_a_2048th_of_the_exact_nearest_rank(values: list[int], percentile: float) -> None:
    exact = sorted(values)[nearest_rank(percentile, len(values)) - 1]
    assert abs(recorded(values).percentile_us(percentile) - exact) <= exact / 2048


@given(some_values_us)
def test_mean_least_and_greatest_are_exact(values: list[int]) -> None:
    histogram = recorded(values)
    assert histogram.mean_us == pytest.approx(sum(values) / len(values), rel=1e-15)
    assert histogram.min_us == min(values)
    assert histogram.percentile_us(100) == histogram.max_us == max(values)


@given(st.lists(st.integers(0, 2047), min_size=1))
def test_below_two_milliseconds_every_percentile_is_exact(values: list[int]) -> None:
    for percentile in (0, 1, 25, 50, 90, 99, 99.9, 100):
        exact = sorted(values)[nearest_rank(percentile, len(values)) - 1]
        assert recorded(values).percentile_us(percentile) == exact


@given(values_us, values_us)
def test_merging_is_recording_all(some: list[int], others: list[int]) -> None:
    assert same(merge([recorded(some), recorded(others)]), recorded(some + others))


@given(values_us, values_us, values_us)
def test_merging_does_not_depend_on_order_or_grouping(a: list[int], b: list[int], c: list[int]) -> None:
    one, two, three = recorded(a), recorded(b), recorded(c)
    assert same(merge([one, two]), merge([two, one]))
    assert same(merge([merge([one, two]), three]), merge([one, merge([two, three])]))
    assert same(merge([one, Histogram()]), one)


def test_what_is_beyond_the_range_is_clamped_and_counted() -> None:
    histogram = recorded([-5, 10, HIGHEST_US + 1, 3_600_000_000])
    assert histogram.clamped == 2
    assert (histogram.min_us, histogram.max_us, histogram.count) == (0, HIGHEST_US, 4)


def test_hours_are_within_the_range() -> None:
    assert recorded([24 * 3_600_000_000]).clamped == 0


@pytest.mark.parametrize(
    ("percentile", "count", "rank"),
    [
        (0, 10, 1),
        (50, 10, 5),
        (50, 11, 6),
        (99, 100, 99),
        (99.9, 1000, 999),
        (99.9, 1001, 1000),
        (100, 7, 7),
        (99, 1, 1),
    ],
)
def test_a_percentile_is_the_nearest_rank(percentile: float, count: int, rank: int) -> None:
    assert nearest_rank(percentile, count) == rank


def test_nothing_recorded_has_no_curve_and_a_count_of_nought() -> None:
    quantiles = quantiles_ms(Histogram())
    assert (quantiles.count, quantiles.p99, quantiles.curve) == (0, 0.0, ())


@given(some_values_us)
def test_a_curve_rises_from_the_least_to_the_greatest(values: list[int]) -> None:
    histogram = recorded(values)
    curve = curve_ms(histogram)
    percentiles, heights = zip(*curve, strict=True)
    assert list(percentiles) == sorted(percentiles)
    assert list(heights) == sorted(heights)
    assert (percentiles[0], percentiles[-1]) == (0, 100)
    assert heights[-1] == round(max(values) / 1000, 3)


def test_a_curve_goes_as_far_as_its_count_can_tell_evenly_towards_100() -> None:
    curve = curve_ms(recorded(list(range(1000))))
    places = [-math.log10(1 - percentile / 100) for percentile, _ in curve[:-1]]
    assert len(places) == 31
    assert places == pytest.approx([step / 10 for step in range(31)], abs=1e-3)


def test_quantiles_are_in_milliseconds() -> None:
    quantiles = quantiles_ms(recorded([1000 * value for value in range(1, 1001)]))
    assert quantiles.count == 1000
    assert quantiles.mean == 500.5
    assert quantiles.p50 == pytest.approx(500, rel=1 / 2048)
    assert quantiles.p999 == pytest.approx(999, rel=1 / 2048)
    assert quantiles.max == 1000
