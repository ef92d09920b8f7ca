import pytest
from tests.builders.load_records import answered, failed, run_of, scenario_of

from cotenant_loadtests.summary import summarise


def test_a_run_is_summed_up_with_its_verdict() -> None:
    scenario = scenario_of(slo={"success_rate": 0.6, "ttft_p99_ms": {"blue": 30}}, goodput={"ttft_ms": 25})
    requests = [
        answered(at_s=1, ttft_ms=20, gaps_ms=[10, 10]),
        answered(at_s=2, ttft_ms=30, gaps_ms=[10]),
        failed("overloaded", at_s=3, status=503),
    ]
    results = summarise(scenario, run_of(requests), "http://127.0.0.1:1")
    assert results.verdict == "passed"
    assert (results.total.scheduled, results.total.succeeded, results.total.good) == (3, 2, 1)
    assert results.total.ttft_ms.mean == 25
    assert results.total.errors == {"overloaded": 1}
    assert results.total.offered_per_s == pytest.approx(0.3)
    assert [(error.outcome, error.status, error.count) for error in results.errors] == [("overloaded", 503, 1)]
    assert sum(results.timeline.series[0].completion_tokens) == results.total.completion_tokens == 5
    assert results.target == "http://127.0.0.1:1"
    assert len(results.plan_sha256) == 64
    assert results.started == "2023-11-14T22:13:20.000+00:00"


def test_a_missed_limit_is_named_with_its_figure() -> None:
    scenario = scenario_of(slo={"ttft_p99_ms": {"blue": 10}})
    results = summarise(scenario, run_of([answered(ttft_ms=20)]), "http://127.0.0.1:1")
    assert results.verdict == "missed"
    assert [(slo.slo, slo.where, slo.limit, slo.value) for slo in results.slo] == [("ttft_p99_ms", "blue", 10, 20)]


def test_a_run_that_cannot_be_believed_is_neither_passed_nor_missed() -> None:
    scenario = scenario_of(slo={"ttft_p99_ms": 10})
    results = summarise(scenario, run_of([answered(ttft_ms=20, late_ms=6)]), "http://127.0.0.1:1")
    assert results.verdict == "not_valid"
    assert len(results.validity.reasons) == 1


def test_a_run_without_a_single_record_says_so() -> None:
    results = summarise(scenario_of(), run_of([], interrupted=True), "http://127.0.0.1:1")
    assert results.verdict == "not_valid"
    assert results.total.scheduled == 0
    assert results.total.success_rate == 1.0
    assert results.fairness.jain is None
