"""Intervals hold the truth about as often as they say, and there is none where rounds are too few."""

import math

import numpy as np
import pytest

from cotenant_loadtests.bootstrap import FEWEST_ROUNDS, ratio, ratio_interval, slope, slope_interval, student_t

TRIALS = 250


def rounds(rng: np.random.Generator, number: int, ratio: float) -> tuple[list[float], list[float]]:
    """A and B of `number` rounds; what disturbs a round disturbs both, and a little is each one's own."""
    shared = rng.normal(0, 0.2, number)
    a = np.exp(shared + rng.normal(0, 0.1, number)) * 100
    b = np.exp(shared + rng.normal(0, 0.1, number)) * 100 * ratio
    return a.tolist(), b.tolist()


@pytest.mark.parametrize("number", [6, 10, 20])
def test_nineteen_of_twenty_intervals_hold_the_true_ratio(number: int) -> None:
    rng = np.random.default_rng(number)
    held = 0
    for _ in range(TRIALS):
        found = ratio_interval(*rounds(rng, number, 1.3))
        assert found is not None
        held += found.low <= 1.3 <= found.high

    assert 0.90 <= held / TRIALS <= 0.985


@pytest.mark.parametrize("number", [6, 12, 30])
def test_intervals_of_slopes_are_not_too_narrow(number: int) -> None:
    rng, hours = np.random.default_rng(number), np.arange(number, dtype=float)
    held = 0
    for _ in range(TRIALS):
        found = slope_interval(hours.tolist(), (5 + 0.5 * hours + rng.normal(0, 1, number)).tolist())
        assert found is not None
        held += found.low <= 0.5 <= found.high

    assert held / TRIALS >= 0.92


def test_equal_servers_have_a_ratio_of_one() -> None:
    same = [3.0, 5.0, 4.0, 9.0, 2.0, 4.5]

    found = ratio_interval(same, same)

    assert found is not None
    assert (found.low, found.high) == (1.0, 1.0)


def test_a_server_that_is_twice_as_slow_in_each_round_is_twice_as_slow() -> None:
    found = ratio_interval([1, 10, 2, 7, 3, 5], [2, 20, 4, 14, 6, 10])

    assert found is not None
    assert (found.low, found.high) == (2.0, 2.0)


def test_the_ratio_is_that_of_the_middle_round_and_no_outlier_moves_it() -> None:
    assert ratio([1, 10, 2], [2, 20, 900]) == 2.0


def test_the_same_rounds_always_have_the_same_interval() -> None:
    a, b = rounds(np.random.default_rng(3), 8, 1.1)

    assert ratio_interval(a, b) == ratio_interval(a, b)


def test_five_rounds_are_too_few_for_an_interval_of_95_percent() -> None:
    assert ratio_interval([1.0] * (FEWEST_ROUNDS - 1), [1.0] * (FEWEST_ROUNDS - 1)) is None
    assert ratio_interval([1.0] * FEWEST_ROUNDS, [1.0] * FEWEST_ROUNDS) is not None


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio_interval([0.0] + [1.0] * 7, [1.0] * 8) is None
    assert ratio([0.0, 1.0], [1.0, 1.0]) is None
    assert ratio([], []) is None


def test_rounds_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="8 rounds before and 7 after"):
        ratio_interval([1.0] * 8, [1.0] * 7)


def test_a_slope_is_that_of_least_squares() -> None:
    assert slope([0, 1, 2, 3], [1, 3, 5, 7]) == (2.0, 1.0)
    assert slope([1, 1, 1], [1, 2, 3]) is None


def test_few_segments_and_segments_at_one_time_have_no_interval() -> None:
    assert slope_interval([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]) is None
    assert slope_interval([1] * 8, [0, 1, 2, 3, 4, 5, 6, 7]) is None


@pytest.mark.parametrize(("freedom", "value"), [(4, 2.776), (6, 2.447), (10, 2.228), (30, 2.042)])
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert math.isclose(student_t(0.975, freedom), value, rel_tol=0.01)
