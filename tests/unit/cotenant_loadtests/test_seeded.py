"""Our own random numbers: the same everywhere, and as random as they should be."""

from itertools import accumulate
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.seeded import Source, derived_seed

SEEDS = st.integers(0, 2**63 - 1)
COUNT = 20_000


def test_the_numbers_are_those_of_splitmix64() -> None:
    """The first outputs of the reference implementation, prng.di.unimi.it/splitmix64.c, from state 1234567."""
    source = Source(0)
    source._state = 1234567
    assert [source.bits() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_the_distributions_draw_what_they_have_always_drawn() -> None:
    """Changes here change every plan: raise the version of the plan's schema then."""
    source = Source(42, "stream", "chat")
    drawn = [source.unit(), source.exponential(2.0), source.normal(), source.gamma(0.3), source.gamma(4.0)]
    assert [round(number, 9) for number in drawn] == [0.008056672, 4.563134034, 0.868766322, 0.000117981, 5.223625764]
    assert [source.integer(1, 6) for _ in range(8)] == [5, 6, 4, 2, 5, 5, 1, 3]


@given(SEEDS)
def test_equal_seeds_and_names_give_equal_numbers(seed: int) -> None:
    assert Source(seed, "a", 1).bits() == Source(seed, "a", 1).bits()
    assert Source(seed, "a").child("b").bits() == Source(seed, "a").child("b").bits()


@given(SEEDS)
def test_what_was_drawn_does_not_change_a_sub_stream(seed: int) -> None:
    source = Source(seed)
    before = source.child("x").bits()
    source.bits()
    assert source.child("x").bits() == before


@given(SEEDS, st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True))
def test_sub_streams_of_other_names_differ(seed: int, names: list[str]) -> None:
    assert len({derived_seed(seed, name) for name in names}) == len(names)


def test_names_are_not_run_together() -> None:
    assert derived_seed(1, "ab", "c") != derived_seed(1, "a", "bc")
    assert derived_seed(1, "2") != derived_seed(12)


@given(SEEDS, st.integers(-50, 50), st.integers(0, 100))
def test_integers_keep_to_their_bounds(seed: int, low: int, more: int) -> None:
    source = Source(seed)
    assert all(low <= source.integer(low, low + more) <= low + more for _ in range(20))


def test_integers_are_equally_often_each() -> None:
    source = Source(5)
    counts = [0] * 6
    for _ in range(COUNT):
        counts[source.integer(0, 5)] += 1
    # Five degrees of freedom: 40 has a chance of one in ten million.
    assert sum((count - COUNT / 6) ** 2 / (COUNT / 6) for count in counts) < 40


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_gamma_has_its_mean_and_variance(shape: float) -> None:
    source = Source(7, "gamma")
    drawn = [source.gamma(shape) for _ in range(COUNT)]
    assert min(drawn) >= 0
    assert fmean(drawn) == pytest.approx(shape, rel=6 / (COUNT * shape) ** 0.5)
    assert pvariance(drawn) == pytest.approx(shape, rel=6 * ((2 + 6 / shape) / COUNT) ** 0.5)


def test_normal_and_exponential_have_their_moments() -> None:
    source = Source(8)
    normal = [source.normal() for _ in range(COUNT)]
    assert fmean(normal) == pytest.approx(0, abs=6 / COUNT**0.5)
    assert pvariance(normal) == pytest.approx(1, rel=6 * (2 / COUNT) ** 0.5)
    exponential = [source.exponential(3.0) for _ in range(COUNT)]
    assert fmean(exponential) == pytest.approx(3, rel=6 / COUNT**0.5)
    assert sum(value > 3 for value in exponential) / COUNT == pytest.approx(0.3679, abs=0.02)


def test_a_choice_falls_by_weight() -> None:
    source = Source(9)
    cumulative = list(accumulate([1.0, 0.0, 3.0]))
    counts = [0, 0, 0]
    for _ in range(COUNT):
        counts[source.index(cumulative)] += 1
    assert counts[1] == 0
    assert counts[2] / COUNT == pytest.approx(0.75, abs=0.02)
