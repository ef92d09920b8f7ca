"""`find-capacity`: the scenario at one rate after the other."""

from collections.abc import Sequence
from functools import partial

from cotenant_loadtests.capacity import Beyond, Search, find_capacity, verdict_of
from cotenant_loadtests.concluding import conclude
from cotenant_loadtests.extras import RateTried, concluded
from cotenant_loadtests.findings import number
from cotenant_loadtests.gate import measured, place
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.measuring import Measuring, Refuse, ready
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.problems import ScenarioError
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed, RunError
from cotenant_loadtests.setting_up import Choices, Wishes
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.terminal import note
from cotenant_loadtests.units import counted
from cotenant_loadtests.variants import at_factor, with_seed

FEWEST = 5
"""Requests of a run: with fewer a rate is not worth trying."""


def find(
    choices: Choices,
    wishes: Wishes,
    local: LocalKeys,
    *,
    from_per_s: float | None,
    to_per_s: float | None,
    within: float,
    repeats: int,
) -> int:
    """Rates in requests per second, of all streams together. The exit code.

    Raises ScenarioError, RefusedError, RunError.
    """
    with ready(choices, wishes, local, _refuse(from_per_s, to_per_s)) as here:
        scenario = here.loaded.scenario
        note(f"several rates, {counted(repeats, 'run')} at each; at the scenario's own rate {here.extent}")
        scenario_per_s = len(here.plan) / scenario.duration_s
        search = Search(
            scenario_per_s=scenario_per_s,
            from_per_s=from_per_s or min(scenario_per_s, to_per_s or scenario_per_s),
            to_per_s=to_per_s,
            least_per_s=FEWEST / scenario.duration_s,
            within=within,
            repeats=repeats,
        )
        found, results = find_capacity(search, partial(_measure, here.runs, scenario), _say)
        if results is None:
            raise RefusedError(found.sentence)
        done = concluded(
            results,
            "find-capacity",
            found,
            verdict=verdict_of(found),
            interrupted=found.ended == "interrupted",
            not_valid=[found.sentence],
        )
        return conclude(here.folder, done, found)


def _refuse(from_per_s: float | None, to_per_s: float | None) -> Refuse:
    def refuse(scenario: Scenario, plan: Sequence[Planned]) -> None:
        if from_per_s is not None and to_per_s is not None and from_per_s > to_per_s:
            raise RefusedError(f"--from {from_per_s:g} is above --to {to_per_s:g}; say a lower one")
        if not scenario.slo:
            raise RefusedError(
                "slo: the scenario has none to keep; say what is kept, "
                "such as --set 'slo={ttft_p99_ms: 500, success_rate: 0.99}'"
            )

    return refuse


def _measure(runs: Measuring, scenario: Scenario, factor: float, run: int) -> Results | Beyond | Failed:
    try:
        return runs.results(at_factor(with_seed(scenario, run), factor))
    except (RefusedError, ScenarioError) as beyond:
        return Beyond(str(beyond))
    except RunError as error:
        if run == 0:  # before which there is nothing to lose
            raise
        return Failed(str(error))


def _say(tried: RateTried) -> None:
    missed = ", ".join(f"{place(slo)}: {measured(slo)}" for slo in tried.missed)
    why = missed if tried.verdict == "missed" else tried.why
    note(f"{number(tried.rate_per_s)} requests/s: {tried.verdict.replace('_', ' ')}{': ' if why else ''}{why}")
