import importlib.metadata

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.load_records import Request, answered, failed, planned, run_of, scenario_of, stream

from cotenant_loadtests.columns import OUTCOMES
from cotenant_loadtests.record import NEVER, Record, encode_times
from cotenant_loadtests.results import Results
from cotenant_loadtests.summary import summarise


def test_a_run_is_summed_up_with_its_verdict() -> None:
    scenario = scenario_of(slo={"success_rate": 0.6, "ttft_p50_ms": {"blue": 30}}, goodput={"ttft_ms": 25})
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


def test_a_run_from_a_source_tree_is_summed_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **_: iter(()))
    assert summarise(scenario_of(), run_of([answered()]), "http://127.0.0.1:1").cotenant_version == "0"


@st.composite
def strange_requests(draw: st.DrawFn) -> Request:
    """Any outcome with any times: what a broken server, or a worker that was stopped, may leave."""
    at_us = draw(st.integers(0, 12_000_000))
    times_us = sorted(at_us + draw(st.integers(0, 3_000_000)) for _ in range(draw(st.integers(0, 4))))
    later_us = st.just(NEVER) | st.integers(at_us, at_us + 3_000_000)
    sent_us = draw(later_us)
    record = Record(
        id=0,
        process=draw(st.integers(0, 2)),
        outcome=draw(st.sampled_from(OUTCOMES)),
        status=draw(st.sampled_from([0, 200, 429, 503])),
        scheduled_us=at_us,
        sent_us=sent_us,
        connect_us=draw(st.integers(0, 1_000_000)),
        first_byte_us=draw(later_us),
        first_token_us=times_us[0] if times_us else draw(later_us),
        end_us=draw(st.just(NEVER) | st.integers(max(at_us, sent_us), at_us + 3_000_000)),
        token_times=encode_times(times_us),
        events=len(times_us),
        prompt_tokens=draw(st.integers(NEVER, 9)),
        completion_tokens=draw(st.integers(NEVER, 9)),
    )
    api = draw(st.sampled_from(["chat", "embeddings", "oip"]))
    tenant, model = draw(st.sampled_from("ab")), draw(st.sampled_from(["x", "y/z"]))
    return planned(at_s=at_us / 1e6, tenant=tenant, model=model, api=api, streamed=draw(st.booleans())), record


@settings(max_examples=40)
@given(st.lists(strange_requests(), max_size=12), st.booleans(), st.sampled_from([None, 4.0, 12.0]))
def test_whatever_is_recorded_can_be_summed_up(
    requests: list[Request], interrupted: bool, duration_s: float | None
) -> None:
    arrivals = {"process": "steps", "rates_per_s": [1, 2], "step_s": 5, "stop_below": 0.5}
    scenario = scenario_of(
        warmup_s=2,
        cooldown_s=1,
        slo={"ttft_p99_ms": {"a": 100, "b/y/z": 100}, "jain": 0.5, "goodput_rate": 0.5},
        goodput={"ttft_ms": 500, "tpot_ms": 50, "e2e_ms": 1000},
        streams=[stream(arrivals=arrivals, tenant=["a", "b"], model=["x", "y/z"])],
    )
    results = summarise(scenario, run_of(requests, interrupted=interrupted, duration_s=duration_s), "http://h")
    assert msgspec.json.decode(msgspec.json.encode(results), type=Results) == results
    assert results.total.scheduled == sum(group.scheduled for group in results.groups)
    assert 0 <= results.total.good <= results.total.succeeded <= results.total.scheduled
    assert (results.verdict == "not_valid") == bool(results.validity.reasons)
    assert len(results.slo) == 4
    assert min(results.timeline.series[0].in_flight) >= 0
