import pytest
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


@pytest.mark.parametrize(("stop_below", "until_s"), [(0.9, 4.0), (None, 10.0)])
def test_a_step_search_that_ended_early_scheduled_until_its_first_unsent_request(
    stop_below: float | None, until_s: float
) -> None:
    arrivals = {"process": "steps", "rates_per_s": [1, 2, 4], "step_s": 3, "stop_below": stop_below}
    scenario = scenario_of(streams=[stream(arrivals=arrivals)])
    whole = run_of([answered(at_s=at) for at in (1, 2, 3.5, 4, 5)])
    output = run_of([answered(at_s=at) for at in (1, 2, 3.5, 4, 5)], records=whole.records[:3])
    assert scheduled_until_s(scenario, output) == until_s
