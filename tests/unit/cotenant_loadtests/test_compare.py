"""Rounds in turn, ratios with intervals, and no difference where none is shown."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.builders.load_results import group, quantiles, results

from cotenant_loadtests.compare import compare, parse_condition, too_few, verdict_of
from cotenant_loadtests.extras import Compared, Comparison
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed

NOISE = (1.00, 1.03, 0.98, 1.05, 0.97, 1.01, 0.99, 1.04)
ORDERS = {"a": NOISE, "b": NOISE[3:] + NOISE[:3]}
"""Equal servers, measured at different moments."""


def noisy(ratio: float) -> Callable[[str, int], Results]:
    """B answers `ratio` times as slowly; each run differs a little."""

    def measure(side: str, number: int) -> Results:
        slowness = ORDERS[side][number % 8] * (ratio if side == "b" else 1.0)
        return results(
            target=side,
            total=group(
                ttft_ms=quantiles(50 * slowness, 90 * slowness),
                completion_tokens_per_s=1000 / slowness,
                goodput_per_s=0.0,
            ),
        )

    return measure


def metric(found: Comparison, name: str) -> Compared:
    return next(one for one in found.metrics if one.metric == name)


def test_a_server_twice_as_slow_is_found_with_its_ratio() -> None:
    found, _ = compare(("A", "B"), 8, noisy(2.0))

    slower = metric(found, "ttft_p99_ms")
    assert slower.difference == "higher"
    assert slower.interval is not None
    assert slower.interval.low <= 2.0 <= slower.interval.high
    assert metric(found, "tokens_per_s").difference == "lower"


def test_between_equal_servers_no_difference_is_shown() -> None:
    found, _ = compare(("A", "B"), 8, noisy(1.0))

    assert metric(found, "ttft_p50_ms").difference == "none_shown"
    assert metric(found, "success_rate").difference == "none_shown"


NAMES = ("A", "B")


def drawn(rng: np.random.Generator, slowness: float) -> Callable[[str, int], Results]:
    """Each run of either server is a little different, some figures much; B is `slowness` times as slow."""

    def measure(side: str, number: int) -> Results:
        slow = slowness if side == "b" else 1.0
        run, own = rng.normal(0, 0.1), np.exp(rng.normal(0, [0.05, 0.2] * 4))
        p50, p99, itl, itl99, tpot, tpot99, e2e, e2e99 = (float(one * np.exp(run)) * slow for one in own)
        return results(
            total=group(
                ttft_ms=quantiles(50 * p50, 90 * p99),
                itl_ms=quantiles(8 * itl, 12 * itl99),
                tpot_ms=quantiles(8 * tpot, 12 * tpot99),
                e2e_ms=quantiles(400 * e2e, 600 * e2e99),
                completion_tokens_per_s=1000 * float(np.exp(rng.normal(0, 0.05))) / slow,
                success_rate=1 - 0.01 * float(rng.random()),
                goodput_per_s=10 * float(np.exp(rng.normal(0, 0.05))) / slow,
            )
        )

    return measure


@pytest.mark.parametrize("rounds", [6, 10])
def test_of_equal_servers_one_comparison_in_twenty_shows_any_difference(rounds: int) -> None:
    """With an interval of 95 % for each of the eleven figures it were two in five."""
    rng, trials = np.random.default_rng(rounds), 300
    wrong = 0
    for _ in range(trials):
        found, _ = compare(NAMES, rounds, drawn(rng, 1.0))
        assert all(one.interval is not None for one in found.metrics)
        wrong += any(one.difference != "none_shown" for one in found.metrics)

    assert wrong / trials <= 0.08  # 0.05, and three standard errors of so many trials


def test_a_server_twice_as_slow_is_shown_by_six_rounds_nearly_always() -> None:
    rng, trials = np.random.default_rng(1), 100
    shown = dict.fromkeys(("ttft_p50_ms", "e2e_p50_ms", "tokens_per_s"), 0)
    for _ in range(trials):
        found, _ = compare(NAMES, 6, drawn(rng, 2.0))
        for name in shown:
            shown[name] += metric(found, name).difference != "none_shown"

    assert min(shown.values()) >= 0.95 * trials


def test_rounds_begin_with_a_and_b_in_turn_and_both_get_the_same_number() -> None:
    asked: list[tuple[str, int]] = []

    def measure(side: str, number: int) -> Results:
        asked.append((side, number))
        return results()

    found, _ = compare(("A", "B"), 3, measure)

    assert asked == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert found.order == ("ab", "ba", "ab")


def test_few_rounds_give_ratios_without_a_claim() -> None:
    found, _ = compare(("A", "B"), 5, noisy(2.0))

    few = metric(found, "ttft_p50_ms")
    assert (few.difference, few.interval) == ("too_few_rounds", None)
    assert few.ratio == pytest.approx(2.0, rel=0.1)
    assert "5 rounds are too few for an interval of 95 %" in str(too_few(5))
    assert too_few(6) is None


def test_a_figure_that_was_not_measured_in_each_round_is_not_compared() -> None:
    def measure(side: str, number: int) -> Results:
        return results(total=group(ttft_ms=quantiles(None if (side, number) == ("b", 2) else 50.0)))

    found, _ = compare(("A", "B"), 6, measure)

    gap = metric(found, "ttft_p50_ms")
    assert (gap.difference, gap.b, gap.ratio) == ("not_measured", None, None)
    assert gap.rounds_b[2] is None
    assert metric(found, "itl_p50_ms").difference == "not_measured"


def test_there_is_no_ratio_to_a_goodput_of_nothing() -> None:
    found, _ = compare(("A", "B"), 6, noisy(1.0))

    assert metric(found, "goodput_per_s").difference == "not_measured"


def test_a_run_that_is_not_valid_is_named_with_its_reason() -> None:
    def measure(side: str, number: int) -> Results:
        return results("not_valid" if (side, number) == ("b", 1) else "passed")

    found, _ = compare(("A", "B"), 6, measure)

    assert found.not_valid == ("round 2, B: too late.",)


def test_a_run_that_fails_ends_the_rounds_and_those_before_it_are_kept() -> None:
    def measure(side: str, number: int) -> Results | Failed:
        return Failed("worker 0 died") if (side, number) == ("b", 3) else results(name=f"{side}{number}")

    found, shown = compare(("A", "B"), 6, measure)

    assert (found.rounds, found.not_valid) == (3, ("round 4, B: worker 0 died",))
    assert verdict_of(found) == "not_valid"
    assert shown.name == "b2"


def test_an_interrupted_round_is_left_out_and_what_is_whole_is_reported() -> None:
    def measure(side: str, number: int) -> Results:
        return results(name=f"{side}{number}", interrupted=(side, number) == ("a", 2))

    found, shown = compare(("A", "B"), 6, measure)

    assert (found.rounds, found.order) == (2, ("ab", "ba"))
    assert shown.name == "b1"


def test_a_comparison_that_is_interrupted_at_once_shows_what_there_is() -> None:
    found, shown = compare(("A", "B"), 6, lambda side, number: results(name=side, interrupted=True))

    assert (found.rounds, shown.name) == (0, "a")
    assert {one.difference for one in found.metrics} == {"not_measured"}


@pytest.mark.parametrize(
    ("ratio", "condition", "failed"),
    [
        (2.0, "ttft_p99_ms > 1.5", True),
        (1.0, "ttft_p99_ms > 1.5", False),
        (2.0, "tokens_per_s < 0.9", True),
        (1.0, "tokens_per_s < 0.9", False),
    ],
)
def test_a_condition_fails_where_the_whole_interval_is_beyond_its_limit(
    ratio: float, condition: str, failed: bool
) -> None:
    found, _ = compare(("A", "B"), 8, noisy(ratio), [parse_condition(condition)])

    assert [(one.text, one.failed) for one in found.conditions] == [(condition, failed)]


def test_a_condition_within_the_interval_does_not_fail() -> None:
    found, _ = compare(("A", "B"), 8, noisy(1.0), [parse_condition("ttft_p50_ms > 1.0")])

    assert not found.conditions[0].failed


@pytest.mark.parametrize("text", ["", "ttft_p99_ms", "ttft_p99_ms = 1.1", "latency > 1", "ttft_p99_ms > x", "x > 1"])
def test_a_condition_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RefusedError, match=r"such as 'ttft_p99_ms > 1\.1'"):
        parse_condition(text)
