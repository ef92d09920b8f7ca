"""Intervals of ratios and of slopes hold the truth as often as they say; few rounds and few segments have none."""

import math

import numpy as np
import pytest

from cotenant_loadtests.bootstrap import slope, slope_interval, student_t
from cotenant_loadtests.paired import FEWEST_ROUNDS, ratio, ratio_interval

TRIALS = 250


def rounds(rng: np.random.Generator, number: int, ratio: float) -> tuple[list[float], list[float]]:
    """A and B of `number` rounds; what disturbs a round disturbs both, and a little is each one's own."""
    shared = rng.normal(0, 0.2, number)
    a = np.exp(shared + rng.normal(0, 0.1, number)) * 100
    b = np.exp(shared + rng.normal(0, 0.1, number)) * 100 * ratio
    return a.tolist(), b.tolist()


@pytest.mark.parametrize("number", [6, 10, 20])
def test_nineteen_of_twenty_intervals_of_one_figure_hold_the_true_ratio(number: int) -> None:
    rng = np.random.default_rng(number)
    held = 0
    for _ in range(TRIALS):
        found = ratio_interval(*rounds(rng, number, 1.3), figures=1)
        assert found is not None
        held += found.low <= 1.3 <= found.high

    assert 0.92 <= held / TRIALS <= 0.98


def test_an_interval_of_many_figures_is_wider_than_that_of_one() -> None:
    a, b = rounds(np.random.default_rng(3), 8, 1.1)
    one, many = ratio_interval(a, b, figures=1), ratio_interval(a, b, figures=11)

    assert one is not None
    assert many is not None
    assert many.low < one.low < one.high < many.high


def test_equal_servers_have_a_ratio_of_one() -> None:
    same = [3.0, 5.0, 4.0, 9.0, 2.0, 4.5]

    found = ratio_interval(same, same, figures=11)

    assert found is not None
    assert (found.low, found.high) == (1.0, 1.0)


def test_a_server_that_is_twice_as_slow_in_each_round_is_twice_as_slow() -> None:
    found = ratio_interval([1, 10, 2, 7, 3, 5], [2, 20, 4, 14, 6, 10], figures=11)

    assert found is not None
    assert (found.low, found.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_what_doubles_one_round_and_halves_another_changes_nothing() -> None:
    assert ratio([1, 10, 2], [2, 5, 2]) == pytest.approx(1.0)


def test_a_server_that_does_nothing_in_some_rounds_has_a_ratio_too() -> None:
    some = ratio_interval([10.0] * 6, [0.0, 10.0, 0.0, 10.0, 0.0, 10.0], figures=1)
    none = ratio_interval([10.0] * 6, [0.0] * 6, figures=11)

    assert ratio([10.0] * 6, [0.0, 10.0, 0.0, 10.0, 0.0, 10.0]) == 0.5
    assert some is not None
    assert none is not None
    assert some.low == 0.0 or some.low < 0.5 < some.high
    assert (none.low, none.high) == (0.0, 0.0)


def test_five_rounds_are_too_few_for_an_interval() -> None:
    assert ratio_interval([1.0] * (FEWEST_ROUNDS - 1), [1.0] * (FEWEST_ROUNDS - 1), figures=1) is None
    assert ratio_interval([1.0] * FEWEST_ROUNDS, [1.0] * FEWEST_ROUNDS, figures=1) is not None


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio_interval([0.0] + [1.0] * 7, [1.0] * 8, figures=1) is None
    assert ratio([0.0, 1.0], [1.0, 1.0]) is None
    assert ratio([], []) is None


def test_rounds_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="8 rounds before and 7 after"):
        ratio_interval([1.0] * 8, [1.0] * 7, figures=1)


def test_a_ratio_lies_within_its_interval() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        a, b = rounds(rng, 7, 1.2)
        found, middle = ratio_interval(a, b, figures=3), ratio(a, b)
        assert found is not None
        assert middle is not None
        assert found.low <= middle <= found.high
        assert math.isclose(middle / found.low, found.high / middle)


@pytest.mark.parametrize("number", [6, 12, 30])
def test_intervals_of_slopes_are_not_too_narrow(number: int) -> None:
    rng, hours = np.random.default_rng(number), np.arange(number, dtype=float)
    held = 0
    for _ in range(TRIALS):
        found = slope_interval(hours.tolist(), (5 + 0.5 * hours + rng.normal(0, 1, number)).tolist())
        assert found is not None
        held += found.low <= 0.5 <= found.high

    assert held / TRIALS >= 0.92


def test_a_slope_is_that_of_least_squares() -> None:
    assert slope([0, 1, 2, 3], [1, 3, 5, 7]) == (2.0, 1.0)
    assert slope([1, 1, 1], [1, 2, 3]) is None


def test_few_segments_and_segments_at_one_time_have_no_interval() -> None:
    assert slope_interval([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]) is None
    assert slope_interval([1] * 8, [0, 1, 2, 3, 4, 5, 6, 7]) is None


@pytest.mark.parametrize(("freedom", "value"), [(4, 2.776), (6, 2.447), (10, 2.228), (30, 2.042)])
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert math.isclose(student_t(0.975, freedom), value, rel_tol=0.01)


def above(value: float, freedom: int, parts: int = 20_000) -> float:
    """The probability above it, by adding up the density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    places = (np.arange(parts) + 0.5) / parts
    density = scale * (1 + (value / places) ** 2 / freedom) ** (-(freedom + 1) / 2)
    return float(np.sum(density * value / places**2) / parts)


@pytest.mark.parametrize("freedom", [5, 7, 9, 29])
@pytest.mark.parametrize("figures", [1, 5, 11])
def test_quantiles_far_out_leave_as_much_above_them_as_they_say(freedom: int, figures: int) -> None:
    outside = 0.025 / figures
    assert above(student_t(1 - outside, freedom), freedom) == pytest.approx(outside, rel=0.05)
