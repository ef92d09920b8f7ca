"""Arrival processes have the rates and the dispersion they claim.

Bounds are six standard deviations: a right process leaves them once in some hundred million examples.
"""

from itertools import pairwise
from statistics import fmean, pvariance
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cotenant_loadtests.arrivals import arrival_times
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.spec_values import Arrivals

SEEDS = st.integers(0, 2**63 - 1)
RATES = st.floats(0.5, 200)
ARRIVALS: TypeAdapter[Any] = TypeAdapter(Arrivals)
MANY = settings(max_examples=25)


def times(seed: int = 1, from_s: float = 0.0, to_s: float = 100.0, **fields: Any) -> list[float]:
    return list(arrival_times(ARRIVALS.validate_python(fields), Source(seed, "arrivals"), from_s, to_s))


def within(arrivals: list[float], from_s: float, to_s: float) -> int:
    return sum(from_s <= at_s < to_s for at_s in arrivals)


def six_deviations(expected: float) -> float:
    """Of a Poisson count; the 6 is for its longer tail where little is expected."""
    return 6 * expected**0.5 + 6


def dispersion(arrivals: list[float], windows: int, to_s: float) -> float:
    """Index of dispersion: variance over mean of the counts in windows of equal length; 1 for Poisson."""
    counts = [0] * windows
    for at_s in arrivals:
        counts[int(at_s / to_s * windows)] += 1
    return pvariance(counts) / fmean(counts)


PROCESSES: tuple[dict[str, Any], ...] = (
    {"process": "constant", "rate_per_s": 7.0},
    {"process": "poisson", "rate_per_s": 7.0},
    {"process": "gamma", "rate_per_s": 7.0, "burstiness": 0.3},
    {"process": "on_off", "rate_per_s": 9.0, "on_s": 2.0, "off_s": 1.5, "off_rate_per_s": 1.0},
    {"process": "ramp", "from_per_s": 0.0, "to_per_s": 12.0},
    {"process": "ramp", "from_per_s": 12.0, "to_per_s": 0.5},
    {"process": "steps", "rates_per_s": [1, 20, 5], "step_s": 3.0},
)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process["process"])
@given(seed=SEEDS, from_s=st.floats(0, 500), length_s=st.floats(0.01, 30))
@MANY
def test_times_are_in_order_and_within_the_streams_time(
    process: dict[str, Any], seed: int, from_s: float, length_s: float
) -> None:
    found = times(seed, from_s, from_s + length_s, **process)
    assert found == sorted(found)
    assert all(from_s <= at_s < from_s + length_s for at_s in found)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process["process"])
def test_equal_seeds_give_equal_times(process: dict[str, Any]) -> None:
    assert times(3, **process) == times(3, **process)
    if process["process"] != "constant":
        assert times(3, **process) != times(4, **process)


@given(RATES, st.floats(0, 100), st.floats(0.1, 50))
@MANY
def test_constant_comes_at_even_gaps_from_the_first_moment(rate: float, from_s: float, length_s: float) -> None:
    found = times(from_s=from_s, to_s=from_s + length_s, process="constant", rate_per_s=rate)
    assert found[0] == from_s
    assert len(found) == pytest.approx(rate * length_s, abs=1)
    assert all(late - early == pytest.approx(1 / rate) for early, late in pairwise(found))


@given(SEEDS, RATES)
@MANY
def test_poisson_has_its_rate(seed: int, rate: float) -> None:
    found = times(seed, process="poisson", rate_per_s=rate)
    assert len(found) == pytest.approx(rate * 100, abs=six_deviations(rate * 100))


@pytest.mark.parametrize("seed", range(5))
def test_poisson_has_dispersion_1(seed: int) -> None:
    found = times(seed, to_s=1000, process="poisson", rate_per_s=10)
    assert dispersion(found, 1000, 1000) == pytest.approx(1, abs=6 * (2 / 1000) ** 0.5)


@pytest.mark.parametrize("burstiness", [0.1, 0.25, 1.0, 4.0, 50.0])
def test_gaps_of_gamma_have_a_squared_variation_of_one_over_the_burstiness(burstiness: float) -> None:
    count = 20_000
    found = times(11, to_s=count / 40, process="gamma", rate_per_s=40, burstiness=burstiness)
    gaps = [late - early for early, late in pairwise(found)]
    deviation = (1 / burstiness / count) ** 0.5
    assert len(found) == pytest.approx(count, rel=6 * deviation)
    assert fmean(gaps) == pytest.approx(1 / 40, rel=6 * deviation)
    variation = pvariance(gaps) / fmean(gaps) ** 2
    # The variance of a sample's variance grows with the kurtosis, 3 + 6/burstiness.
    assert variation == pytest.approx(1 / burstiness, rel=8 * ((2 + 6 / burstiness) / count) ** 0.5)


@pytest.mark.parametrize("burstiness", [0.05, 0.3, 1.0, 20.0])
def test_gamma_keeps_its_rate_in_short_runs_too(burstiness: float) -> None:
    runs, wanted = 1000, 5 * 20
    found = fmean(
        len(times(seed, to_s=5.0, process="gamma", rate_per_s=20, burstiness=burstiness)) for seed in range(runs)
    )
    assert found == pytest.approx(wanted, abs=3 * (wanted / burstiness / runs) ** 0.5 + 0.1)


@given(SEEDS, st.floats(5, 100), st.floats(0.5, 5), st.floats(0.5, 5), st.sampled_from([0.0, 2.0]))
@MANY
def test_on_off_has_each_rate_in_its_turn(seed: int, rate: float, on_s: float, off_s: float, off_rate: float) -> None:
    fields = {"rate_per_s": rate, "on_s": on_s, "off_s": off_s, "off_rate_per_s": off_rate}
    turns = 20
    found = times(seed, from_s=3.0, to_s=3.0 + turns * (on_s + off_s), process="on_off", **fields)
    # A hair's breadth, because the sums of lengths are rounded.
    on = [at_s for at_s in found if (at_s - 3.0 + 1e-9) % (on_s + off_s) < on_s + 2e-9]
    assert len(on) == pytest.approx(rate * on_s * turns, abs=six_deviations(rate * on_s * turns))
    silent = len(found) - len(on)
    assert silent == pytest.approx(off_rate * off_s * turns, abs=six_deviations(off_rate * off_s * turns))
    if not off_rate:
        assert silent == 0


def test_on_off_is_far_more_dispersed_than_poisson() -> None:
    found = times(2, to_s=1000, process="on_off", rate_per_s=20, on_s=5, off_s=5)
    assert dispersion(found, 200, 1000) > 5


@given(SEEDS, st.floats(0, 100), st.floats(0.1, 100))
@MANY
def test_a_ramp_goes_evenly_from_one_rate_to_the_other(seed: int, first: float, last: float) -> None:
    found = times(seed, process="ramp", from_per_s=first, to_per_s=last)
    for start in range(0, 100, 25):
        middle_rate = first + (last - first) * (start + 12.5) / 100
        expected = middle_rate * 25
        assert within(found, start, start + 25) == pytest.approx(expected, abs=six_deviations(expected))


@given(SEEDS, st.lists(st.floats(0.5, 100), min_size=1, max_size=5))
@MANY
def test_steps_have_their_rates_one_after_the_other_and_then_end(seed: int, rates: list[float]) -> None:
    found = times(seed, from_s=5.0, process="steps", rates_per_s=rates, step_s=10)
    for index, rate in enumerate(rates):
        start = 5.0 + 10 * index
        assert within(found, start, start + 10) == pytest.approx(rate * 10, abs=six_deviations(rate * 10))
    assert within(found, 5.0 + 10 * len(rates), 100.0) == 0
