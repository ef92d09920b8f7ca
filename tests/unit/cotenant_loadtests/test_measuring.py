"""The runs of a command that makes many: what was measured is not lost by one that cannot be made."""

import threading
from pathlib import Path

import pytest
from tests.builders.load_records import scenario_of, stream

from cotenant_loadtests import safety
from cotenant_loadtests.measuring import Measuring
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.setting_up import Choices, Loaded, plan_of
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.variants import with_seed


def runs_of(scenario: Scenario, folder: Path) -> Measuring:
    """Asked to stop before they begin: everything is checked, and nothing is sent."""
    stop = threading.Event()
    stop.set()
    return Measuring(loaded=Loaded(scenario, folder, Choices(scenario="")), keys={}, folder=folder, stop=stop)


def peak_per_s(scenario: Scenario, folder: Path) -> int:
    plan = plan_of(Loaded(scenario, folder, Choices(scenario="")))
    return safety.extent_of(plan, scenario, lambda request: 0).peak_per_s


def test_a_later_run_that_is_refused_is_told_and_the_first_is_raised(tmp_path: Path) -> None:
    elsewhere = scenario_of(target={"url": "http://192.0.2.1"})
    runs = runs_of(elsewhere, tmp_path)

    later = runs.repeated(elsewhere, 3)

    assert isinstance(later, Failed)
    assert "192.0.2.1 is not this machine" in later.why
    with pytest.raises(RefusedError, match=r"192\.0\.2\.1 is not this machine"):
        runs.repeated(elsewhere, 0)


def test_a_run_that_has_more_in_a_second_by_chance_is_not_refused(tmp_path: Path) -> None:
    arrivals = {"process": "poisson", "rate_per_s": 20}
    scenario = scenario_of(duration_s=10, streams=[stream(arrivals=arrivals)])
    peaks = [peak_per_s(with_seed(scenario, number), tmp_path) for number in range(20)]
    lowest = peaks.index(min(peaks))
    scenario = with_seed(scenario, lowest).model_copy(
        update={"limits": scenario.limits.model_copy(update={"rate_per_s": float(min(peaks))})}
    )
    runs = runs_of(scenario, tmp_path)

    assert max(peaks) > min(peaks)
    assert all(isinstance(runs.repeated(scenario, number), Results) for number in range(20))
