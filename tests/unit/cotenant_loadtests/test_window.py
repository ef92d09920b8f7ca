from typing import Any

from tests.builders.load_records import answered, failed, run_of, scenario_of, stream

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.window import Window, scheduled_until_s, window_of

TEN_SECONDS = scenario_of(warmup_s=2, cooldown_s=1)


def window(scenario: Scenario, output: RunOutput) -> Window:
    return window_of(scenario, output, columns_of(output.plan, output.records))


def test_warm_up_and_cool_down_are_cut_off() -> None:
    output = run_of([answered(at_s=at) for at in (0, 1.999999, 2, 5, 8.999999, 9, 9.5)])
    found = window(TEN_SECONDS, output)
    assert (found.from_s, found.to_s, found.length_s) == (2, 9, 7)
    assert found.has(columns_of(output.plan, output.records)).tolist() == [
        False,
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_an_answer_that_ends_after_the_window_is_measured_whole() -> None:
    output = run_of([answered(at_s=8.9, ttft_ms=20_000)])
    assert window(TEN_SECONDS, output).has(columns_of(output.plan, output.records)).tolist() == [True]


def test_a_run_that_was_quick_to_end_still_has_its_whole_window() -> None:
    assert window(TEN_SECONDS, run_of([answered(at_s=3)])).to_s == 9


def test_an_interrupted_run_is_measured_up_to_the_first_request_that_was_cut_off() -> None:
    requests = [answered(at_s=3), answered(at_s=4, ttft_ms=900), failed("interrupted", at_s=4.5), answered(at_s=4.6)]
    output = run_of(requests, duration_s=5.0)
    assert window(TEN_SECONDS, output) == Window(2, 4.5)
    assert window(TEN_SECONDS, output).has(columns_of(output.plan, output.records)).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_an_interrupted_run_with_nothing_under_way_is_measured_up_to_then() -> None:
    assert window(TEN_SECONDS, run_of([answered(at_s=3)], duration_s=5.0, interrupted=True)).to_s == 5


def test_interrupted_in_its_warm_up_a_run_has_an_empty_window() -> None:
    found = window(TEN_SECONDS, run_of([failed("interrupted", at_s=1)], duration_s=1.5))
    assert (found.length_s, found.per_s(0)) == (0, 0)


def sent_until(count: int, **fields: Any) -> RunOutput:
    """Planned each second from 0 to 19; of the first `count` there are records."""
    whole = run_of([answered(at_s=at, ttft_ms=100) for at in range(20)])
    return run_of([answered(at_s=at) for at in range(20)], records=whole.records[:count], **fields)


def step_search(stop_below: float | None) -> Scenario:
    arrivals = {"process": "steps", "rates_per_s": [1, 2, 4, 8], "step_s": 4, "stop_below": stop_below}
    return scenario_of(duration_s=20, streams=[stream(arrivals=arrivals, from_s=1)])


def test_a_step_search_that_ended_early_is_measured_up_to_its_last_whole_step() -> None:
    output = sent_until(11, duration_s=10.1)
    assert scheduled_until_s(step_search(0.9), output) == 10.1
    assert window(step_search(0.9), output).to_s == 9


def test_a_step_search_that_went_through_is_measured_whole() -> None:
    assert window(step_search(0.9), sent_until(20)).to_s == 20


def test_requests_missing_from_a_run_that_may_not_stop_do_not_shorten_it() -> None:
    assert window(step_search(None), sent_until(11, duration_s=10.1)).to_s == 20


def test_an_interrupted_run_whose_answers_were_waited_for_is_measured_up_to_the_first_unsent_request() -> None:
    output = sent_until(11, duration_s=15.0, interrupted=True)
    assert window(scenario_of(duration_s=20), output).to_s == 11


def test_processes_that_stop_a_little_apart_end_at_the_first_of_them() -> None:
    whole = run_of([answered(at_s=at) for at in (1, 2, 2.2, 2.4, 5)])
    output = run_of(
        [answered(at_s=at) for at in (1, 2, 2.2, 2.4, 5)],
        records=[whole.records[number] for number in (0, 1, 3)],
        duration_s=4.0,
        interrupted=True,
    )
    assert scheduled_until_s(TEN_SECONDS, output) == 2.2


def test_a_run_that_ended_at_a_limit_is_measured_as_far_as_it_scheduled() -> None:
    output = sent_until(11, duration_s=15.0, problems=["limits.bytes: …"])
    assert window(scenario_of(duration_s=20), output).to_s == 11
