"""The search ends at the largest rate that is kept, and says when the tool and not the server was the limit."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.builders.load_findings import search, server
from tests.builders.load_results import results

from cotenant_loadtests.capacity import Beyond, Search, decided, find_capacity
from cotenant_loadtests.extras import Capacity
from cotenant_loadtests.results import Results, Verdict
from cotenant_loadtests.run_output import Failed

Measure = Callable[[float, int], Results | Beyond | Failed]


def found(wanted: Search, measure: Measure) -> Capacity:
    return find_capacity(wanted, measure)[0]


@pytest.mark.parametrize("capacity", [10.0, 11.0, 73.0, 999.0])
def test_the_capacity_is_found_within_the_step(capacity: float) -> None:
    answer = found(search(), server(capacity))

    assert answer.ended == "found"
    assert answer.kept_per_s is not None
    assert answer.missed_per_s is not None
    assert answer.kept_per_s <= capacity < answer.missed_per_s
    assert answer.missed_per_s - answer.kept_per_s <= 0.05 * answer.missed_per_s
    assert answer.missed[0].slo == "ttft_p99_ms"
    assert "missed ttft_p99_ms: 900 (limit 500)" in answer.sentence


def test_no_rate_is_tried_twice() -> None:
    rates = [tried.rate_per_s for tried in found(search(), server(73.0)).tried]

    assert len(rates) == len(set(rates))
    assert rates[:4] == [10.0, 20.0, 40.0, 80.0]


def test_where_the_first_rate_misses_the_search_goes_down() -> None:
    answer = found(search(), server(3.0))

    assert [one.rate_per_s for one in answer.tried[:4]] == [10.0, 5.0, 2.5, 3.75]
    assert answer.ended == "found"
    assert answer.kept_per_s is not None
    assert answer.missed_per_s is not None
    assert answer.kept_per_s <= 3.0 < answer.missed_per_s
    assert answer.missed_per_s - answer.kept_per_s <= 0.05 * answer.missed_per_s


def test_a_server_that_keeps_no_rate_is_asked_a_thousand_times_less_at_last() -> None:
    answer = found(search(), server(0.0))

    assert (answer.ended, answer.kept_per_s, answer.missed_per_s) == ("none_kept", None, 10.0 / 1024)
    assert "no rate was kept" in answer.sentence
    assert len(answer.tried) == 11


def test_the_search_ends_where_a_run_would_have_too_few_requests() -> None:
    answer = found(replace(search(), least_per_s=2.0), server(0.0))

    assert [one.rate_per_s for one in answer.tried] == [10.0, 5.0, 2.5]


@pytest.mark.parametrize("limit", ["tool_per_s", "limit_per_s"])
def test_a_first_rate_that_cannot_be_tried_is_halved_too(limit: str) -> None:
    answer = found(search(from_per_s=200.0), server(1000.0, **{limit: 60.0}))

    assert answer.kept_per_s is not None
    assert 57.0 <= answer.kept_per_s <= 60.0


def test_the_highest_rate_asked_for_ends_the_search() -> None:
    answer = found(search(to_per_s=50.0), server(1000.0))

    assert (answer.ended, answer.kept_per_s) == ("all_kept", 50.0)
    assert answer.sentence == "at least 50 requests/s kept the SLOs; no higher one was tried"


def test_a_tool_that_is_saturated_gives_a_lower_bound_and_says_so() -> None:
    answer = found(search(), server(1000.0, tool_per_s=100.0))

    assert answer.ended == "tool_saturated"
    assert answer.kept_per_s is not None
    assert 95.0 <= answer.kept_per_s <= 100.0
    assert answer.missed_per_s is None
    assert answer.sentence.startswith("at least ")
    assert "the tool, not the server, was the limit: too late." in answer.sentence


def test_the_scenarios_limits_give_a_lower_bound_and_are_named() -> None:
    answer = found(search(), server(1000.0, limit_per_s=100.0))

    assert answer.ended == "limits"
    assert "limits.rate_per_s: too many" in answer.sentence


def test_a_tool_that_cannot_do_any_rate_has_found_nothing() -> None:
    assert found(search(), server(1000.0, tool_per_s=0.0)).ended == "not_valid"


def test_one_run_that_is_not_valid_is_repeated_and_does_no_harm() -> None:
    def measure(factor: float, number: int) -> Results | Beyond:
        return results("not_valid") if number == 2 else server(73.0)(factor, number)

    answer = found(search(), measure)

    assert answer.ended == "found"
    assert answer.tried[2].repeats == ("not_valid", "passed")


def test_a_run_that_fails_is_repeated_once_and_ends_no_search() -> None:
    def measure(factor: float, number: int) -> Results | Beyond | Failed:
        return Failed("worker 0 died") if number in (1, 5, 6) else server(73.0)(factor, number)

    answer = found(search(), measure)

    assert [one.rate_per_s for one in answer.tried[:3]] == [10.0, 20.0, 40.0]
    assert (answer.ended, answer.kept_per_s) == ("tool_saturated", 57.5)
    assert answer.sentence.endswith("at 60 the tool, not the server, was the limit: worker 0 died")


@pytest.mark.parametrize(
    ("verdicts", "kept"),
    [
        (["passed", "passed"], True),
        (["passed", "missed"], False),
        (["missed"], False),
        (["passed", "not_valid", "passed"], True),
    ],
)
def test_a_rate_is_kept_by_the_majority_of_two_repeats(verdicts: list[Verdict], kept: bool) -> None:
    only_that = replace(search(to_per_s=10.0, repeats=2), least_per_s=10.0)
    answer = found(only_that, lambda factor, number: results(verdicts[number]))

    assert answer.tried[0].repeats == tuple(verdicts)
    assert answer.tried[0].verdict == ("kept" if kept else "missed")


def test_of_three_repeats_two_decide() -> None:
    assert decided(3, passed=2, missed=0) is True
    assert decided(3, passed=1, missed=2) is False
    assert decided(3, passed=1, missed=1) is None


def test_an_interrupted_search_says_what_it_knows() -> None:
    def measure(factor: float, number: int) -> Results | Beyond:
        return results(interrupted=True) if number == 4 else server(73.0)(factor, number)

    answer, shown = find_capacity(search(), measure)

    assert (answer.ended, answer.kept_per_s, answer.missed_per_s) == ("interrupted", 40.0, 80.0)
    assert shown is not None
    assert shown.name == "40"


def test_a_search_that_is_interrupted_at_once_knows_nothing() -> None:
    answer, shown = find_capacity(search(), lambda factor, number: results(interrupted=True))

    assert (answer.ended, answer.kept_per_s, answer.tried) == ("interrupted", None, ())
    assert answer.sentence == "no rate was kept; no higher one was tried; the search was interrupted"
    assert shown is not None
