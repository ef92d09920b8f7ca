"""Where a value stands on an axis, and where the ticks are."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.report import scales


def labels(scale: scales.Scale) -> list[str]:
    return [tick.label for tick in scale.ticks]


def test_a_linear_axis_ends_at_a_round_value_above_the_highest():
    scale = scales.linear(87.0)
    assert labels(scale) == ["0", "25", "50", "75", "100"]
    assert scale.place(50.0) == 0.5


def test_values_beyond_an_axis_stay_on_its_edge():
    scale = scales.linear(10.0)
    assert (scale.place(-5.0), scale.place(1e9), scale.place(math.inf), scale.place(math.nan)) == (0.0, 1.0, 1.0, 1.0)


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_any_highest_value_stands_on_its_axis_between_two_and_eight_ticks(high: float):
    scale = scales.linear(high)
    assert scale.high >= high * (1 - 1e-9)
    assert 2 <= len(scale.ticks) <= 8
    assert [tick.at for tick in scale.ticks] == sorted({tick.at for tick in scale.ticks})


@pytest.mark.parametrize("high", [0.0, -1.0, math.inf, math.nan])
def test_an_axis_without_extent_is_drawn_all_the_same(high: float):
    assert len(scales.linear(high).ticks) >= 2


def test_a_logarithmic_axis_gives_each_factor_of_ten_the_same_room():
    scale = scales.logarithmic(12.0, 9000.0)
    assert (scale.low, scale.high) == (10.0, 10000.0)
    assert scale.place(100.0) - scale.place(10.0) == pytest.approx(scale.place(1000.0) - scale.place(100.0))
    assert scale.place(0.0) == 0.0


@given(st.floats(min_value=1e-5, max_value=1e8), st.floats(min_value=1.0, max_value=1e6))
def test_a_logarithmic_axis_holds_both_of_its_ends(low: float, factor: float):
    scale = scales.logarithmic(low, low * factor)
    assert scale.low <= low * 1.001
    assert scale.high >= low * factor * 0.999
    assert 2 <= len(scale.ticks) <= 16


def test_latencies_are_linear_unless_the_largest_would_flatten_the_others():
    assert not scales.fitting([10.0, 20.0, 100.0]).logarithmic
    assert scales.fitting([10.0, 20.0, 30.0, 4000.0]).logarithmic
    assert not scales.fitting([]).logarithmic
    assert not scales.fitting([None, 0.0]).logarithmic


def test_a_limit_above_all_values_stays_in_the_picture():
    assert scales.fitting([10.0], also=[500.0]).high >= 500.0


@pytest.mark.parametrize(
    ("seconds", "last"), [(4.0, "4 s"), (60.0, "1:00"), (62.0, "1:00"), (600.0, "10:00"), (14400.0, "4:00:00")]
)
def test_time_has_ticks_that_a_clock_has(seconds: float, last: str):
    scale = scales.time(seconds)
    assert labels(scale)[0] == "0 s"
    assert labels(scale)[-1] == last
    assert 2 <= len(scale.ticks) <= 8


@given(st.floats(min_value=0, max_value=1e7))
def test_no_run_is_too_short_or_too_long_for_a_time_axis(seconds: float):
    assert 1 <= len(scales.time(seconds).ticks) <= 8


def test_each_nine_of_a_percentile_has_the_same_room():
    scale = scales.percentile(100_000)
    steps = [scale.place(p) for p in (0.0, 90.0, 99.0, 99.9, 99.99)]
    widths = [after - before for before, after in pairwise(steps)]
    assert widths == pytest.approx([widths[0]] * 4)


def test_percentiles_reach_as_far_as_there_are_values():
    assert labels(scales.percentile(100))[-1] == "99"
    assert labels(scales.percentile(5000))[-1] == "99.9"
    assert labels(scales.percentile(0))[-1] == "99"
    assert all(tick.at <= 1 for tick in scales.percentile(5000).ticks)
    assert scales.percentile(10).place(100.0) == 1.0
