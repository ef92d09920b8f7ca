import pytest
from tests.builders.load_records import answered, failed, run_of, scenario_of, stream

from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.step_search import StepSearch


def search(stop_below: float | None = 0.5) -> Scenario:
    """Steps of 2 s."""
    arrivals = {"process": "steps", "rates_per_s": [1, 2, 3], "step_s": 2, "stop_below": stop_below}
    return scenario_of(duration_s=6, streams=[stream(arrivals=arrivals)], goodput={"ttft_ms": 100})


GOOD, SLOW = {"ttft_ms": 50.0}, {"ttft_ms": 200.0}


def plan_of(*ttfts: tuple[float, dict[str, float]]) -> RunOutput:
    return run_of([answered(at_s=at_s, **fields) for at_s, fields in ttfts])


def test_a_scenario_without_a_bound_has_nothing_to_search() -> None:
    assert not StepSearch(search(None), []).active
    assert not StepSearch(scenario_of(), []).active
    assert StepSearch(search(), []).active


def test_a_step_is_over_when_too_few_were_good_and_its_time_has_come() -> None:
    run = plan_of((0.0, GOOD), (0.5, SLOW), (1.0, SLOW), (2.0, GOOD))
    steps = StepSearch(search(), run.plan)

    steps.take(run.records)

    assert not steps.is_over(1.9)
    assert steps.is_over(2.0)


@pytest.mark.parametrize(
    ("good", "planned", "stop_below"),
    [(1, 2, 0.5), (9, 10, 0.9), (4, 5, 0.8), (7, 10, 0.7), (19, 20, 0.95), (0, 3, 0.0)],
)
def test_exactly_the_share_is_enough(good: int, planned: int, stop_below: float) -> None:
    run = plan_of(*((number * 0.1, GOOD if number < good else SLOW) for number in range(planned)))
    steps = StepSearch(search(stop_below), run.plan)

    steps.take(run.records)

    assert not steps.is_over(6.0)


def test_what_is_on_its_way_may_still_be_good_and_then_ends_nothing() -> None:
    run = plan_of((0.0, SLOW), (0.5, GOOD), (1.0, SLOW), (2.5, GOOD))
    steps = StepSearch(search(), run.plan)

    steps.take(run.records[:2])
    assert not steps.is_over(3.0)
    steps.take(run.records[2:])
    assert steps.is_over(3.0)


@pytest.mark.parametrize("outcome", ["timeout", "overloaded", "unfinished"])
def test_failures_are_not_good(outcome: str) -> None:
    run = run_of([failed(outcome, at_s=2.5), answered(at_s=0.0)])  # type: ignore[arg-type]
    steps = StepSearch(search(), run.plan)

    steps.take(run.records)

    assert not steps.is_over(3.9)
    assert steps.is_over(4.0)


def test_requests_of_other_streams_and_steps_do_not_count() -> None:
    run = run_of([failed("timeout", at_s=0.5, stream="other"), answered(at_s=0.0)])
    steps = StepSearch(search(), run.plan)

    steps.take(run.records)

    assert not steps.is_over(6.0)
