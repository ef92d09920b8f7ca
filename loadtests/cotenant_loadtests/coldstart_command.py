"""`coldstart`: a request to a cold model, again and again."""

from collections.abc import Sequence

import msgspec

from cotenant_loadtests import coldness
from cotenant_loadtests.coldstart import Coldness, Woken, cold_starts, joined, requests_by_model, schedule, wake_each
from cotenant_loadtests.concluding import conclude
from cotenant_loadtests.extras import Wake, concluded
from cotenant_loadtests.findings import number
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.measuring import Ready, nothing_sent, ready
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.run_output import Failed, RunOutput
from cotenant_loadtests.setting_up import Choices, Wishes
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.summary import summarise
from cotenant_loadtests.terminal import note
from cotenant_loadtests.units import counted


def wake(
    choices: Choices,
    wishes: Wishes,
    local: LocalKeys,
    *,
    times: int,
    models: Sequence[str],
    idle_s: float | None,
    patience_s: float,
) -> int:
    """The exit code. Raises ScenarioError, RefusedError, RunError."""

    def refuse(scenario: Scenario, plan: Sequence[Planned]) -> None:
        requests_by_model(plan, models)

    def ask(scenario: Scenario, plan: Sequence[Planned]) -> None:
        coldness.check(list(requests_by_model(plan, models)), coldness.Gateway(scenario).engines, idle_s)

    with ready(choices, wishes, local, refuse, ask) as here:
        scenario = here.loaded.scenario
        by_model = requests_by_model(here.plan, models)
        look, pause = coldness.Gateway(scenario).engines, here.runs.stop.wait
        requests = schedule(by_model, times)
        note(f"{counted(len(requests), 'wake')} at {scenario.target.url}, one request each: {', '.join(by_model)}")

        def wait(model: str, first: bool) -> Coldness:
            return coldness.wait_until_cold(
                model, look, idle_s=idle_s, patience_s=patience_s, pause=pause, first=first
            )

        def run(request: Planned) -> RunOutput | Failed:
            measured = here.runs.perhaps(_alone(scenario, request), [request])
            return measured if isinstance(measured, Failed) else measured.output

        return _conclude(here, wake_each(requests, wait, run, _say, coldness.why_warm(idle_s, patience_s)), idle_s)


def _conclude(here: Ready, woken: Woken, idle_s: float | None) -> int:
    """Sums up, and writes. The exit code."""
    scenario = here.loaded.scenario
    output = joined(woken.requests, woken.outputs) if woken.outputs else nothing_sent()
    results = summarise(_all(scenario, output), output, scenario.target.url)
    if woken.problem and not woken.outputs:  # that says all; nothing was interrupted
        results = msgspec.structs.replace(results, validity=msgspec.structs.replace(results.validity, reasons=()))
    found = cold_starts(woken, idle_s, results)
    done = concluded(
        results,
        "coldstart",
        found,
        verdict="not_valid" if found.not_valid else results.verdict,
        interrupted=here.runs.stop.is_set(),
        not_valid=found.not_valid,
    )
    return conclude(here.folder, done, found)


def _alone(scenario: Scenario, request: Planned) -> Scenario:
    """For one request, due at once, with all the time it may take."""
    times = {"duration_s": 1.0, "warmup_s": 0.0, "cooldown_s": 0.0, "drain_s": request.deadline_s + 1.0}
    return scenario.model_copy(update={**times, "processes": 1, "slo": {}})


def _all(scenario: Scenario, output: RunOutput) -> Scenario:
    return scenario.model_copy(update={"duration_s": max(1.0, output.duration_s), "warmup_s": 0.0, "cooldown_s": 0.0})


def _say(found: Wake) -> None:
    how = f"{number(found.first_token_ms)} ms to the first token" if found.first_token_ms else found.outcome
    note(f"{found.model}: {how}")
