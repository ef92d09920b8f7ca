import pytest
from tests.builders.load_records import Request, answered, failed, run_of, scenario_of, stream

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.results import Step
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.steps import steps_of
from cotenant_loadtests.window import window_of

STEPS = {"process": "steps", "rates_per_s": [1, 2], "step_s": 4}


def steps(scenario: Scenario, *requests: Request) -> tuple[Step, ...]:
    output = run_of(requests)
    columns = columns_of(output.plan, output.records)
    return steps_of(scenario, columns, window_of(scenario, output, columns))


def test_each_step_has_what_was_offered_and_what_was_good() -> None:
    scenario = scenario_of(streams=[stream(arrivals=STEPS)], goodput={"ttft_ms": 50})
    first, second = steps(
        scenario,
        *(answered(at_s=at, ttft_ms=10) for at in (0, 1, 3.9)),
        *(answered(at_s=at, ttft_ms=90) for at in (4, 5, 6)),
        failed("overloaded", at_s=7, status=503),
    )
    assert (first.from_s, first.to_s, first.rate_per_s, first.good_per_s) == (0, 4, 0.75, 0.75)
    assert (first.success_rate, first.ttft_p99_ms) == (1, 10)
    assert (second.from_s, second.to_s, second.rate_per_s, second.good_per_s) == (4, 8, 1, 0)
    assert second.success_rate == 0.75
    assert second.ttft_p99_ms == pytest.approx(90, rel=1 / 2048)


def test_steps_are_cut_to_the_window_of_the_run() -> None:
    scenario = scenario_of(streams=[stream(arrivals=STEPS, from_s=1)], warmup_s=2, duration_s=6)
    assert [(step.from_s, step.to_s) for step in steps(scenario, answered(at_s=3))] == [(2, 5), (5, 6)]


def test_a_step_without_a_request_has_no_latency() -> None:
    scenario = scenario_of(streams=[stream(arrivals=STEPS)])
    assert [(step.success_rate, step.ttft_p99_ms) for step in steps(scenario)] == [(1, None), (1, None)]


def test_only_a_streams_own_requests_count() -> None:
    scenario = scenario_of(streams=[stream(arrivals=STEPS), stream(name="other")])
    assert [step.rate_per_s for step in steps(scenario, answered(stream="other", at_s=1))] == [0, 0]


def test_other_arrivals_have_no_steps() -> None:
    assert steps(scenario_of(), answered()) == ()
