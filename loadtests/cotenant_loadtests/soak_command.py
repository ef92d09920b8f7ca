"""`soak`: the scenario again and again, for hours."""

import time
from collections.abc import Sequence

from cotenant_loadtests.concluding import conclude, in_short
from cotenant_loadtests.extras import concluded
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.measuring import ready
from cotenant_loadtests.observing import metrics_url
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.setting_up import Choices, Wishes
from cotenant_loadtests.soak import RSS, segment_count, soak, verdict_of, why_not_valid
from cotenant_loadtests.spec import Limits, Scenario
from cotenant_loadtests.terminal import note


def run(choices: Choices, wishes: Wishes, local: LocalKeys, *, hours: float) -> int:
    """The exit code. Raises ScenarioError, RefusedError, RunError."""

    def refuse(scenario: Scenario, plan: Sequence[Planned]) -> None:
        _check_limits(scenario.limits, hours, segment_count(hours, scenario.duration_s) * len(plan))

    with ready(choices, wishes, local, refuse) as here:
        note(f"for {hours:g} h, again and again: {here.extent}")
        scenario = observing_memory(here.loaded.scenario)

        def measure(number: int) -> tuple[Results | Failed, int]:
            results = here.runs.repeated(scenario, number)
            note(f"segment {number + 1}: {in_short(results)}")
            return results, _rss_bytes(results)

        found, results = soak(hours, scenario.duration_s, measure, time.monotonic, here.runs.stop.wait)
        done = concluded(
            results,
            "soak",
            found,
            verdict=verdict_of(found),
            interrupted=found.interrupted,
            not_valid=why_not_valid(found),
        )
        return conclude(here.folder, done, found)


def _check_limits(limits: Limits, hours: float, requests: int) -> None:
    """Those of all segments together; `--hours` is bound enough of the time, unless the scenario says another.

    Raises RefusedError.
    """
    if "duration_s" in limits.model_fields_set and hours * 3600 > limits.duration_s:
        raise RefusedError(
            f"--hours {hours:g} is {hours * 3600:,.0f} s, more than limits.duration_s of {limits.duration_s:,.0f}; "
            f"take fewer, or say --set limits.duration_s={hours * 3600:.0f}"
        )
    if requests > limits.requests:
        raise RefusedError(
            f"--hours {hours:g}: about {requests:,} requests, more than limits.requests of {limits.requests:,}; "
            f"take fewer hours, or say --set limits.requests={requests}"
        )


def observing_memory(scenario: Scenario) -> Scenario:
    """The server's memory is always asked for: it is half of what a soak is about."""
    observe = scenario.observe
    if not observe.metrics and metrics_url(observe, scenario.target) is not None:
        return scenario  # all that is known is kept, memory too
    names = tuple(dict.fromkeys((*observe.metrics, *RSS)))
    return scenario.model_copy(update={"observe": observe.model_copy(update={"metrics": names})})


def _rss_bytes(results: Results | Failed) -> int:
    """Of this process now, and of its workers at most."""
    import psutil

    loads = () if isinstance(results, Failed) else results.validity.processes
    workers = sum(load.max_rss_bytes for load in loads)
    return int(psutil.Process().memory_info().rss) + workers
