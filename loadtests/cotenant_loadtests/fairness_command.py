"""`fairness`: all tenants together, then each light one alone."""

from collections.abc import Sequence

from cotenant_loadtests.concluding import conclude, in_short
from cotenant_loadtests.extras import concluded
from cotenant_loadtests.fairness import fairness, light_tenants
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.measuring import ready
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.setting_up import Choices, Wishes
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.terminal import note


def look(choices: Choices, wishes: Wishes, local: LocalKeys, *, light: Sequence[str]) -> int:
    """`light`: names of tenants; empty: those that offer little. The exit code.

    Raises ScenarioError, RefusedError, RunError.
    """

    def refuse(_scenario: Scenario, plan: Sequence[Planned]) -> None:
        light_tenants(plan, light)

    with ready(choices, wishes, local, refuse) as here:
        scenario = here.loaded.scenario
        tenants = light_tenants(here.plan, light)
        note(f"together: {here.extent}; then alone: {', '.join(tenants)}")
        alone = scenario.model_copy(update={"slo": {}})  # limits of tenants that are not there

        def measure(tenant: str | None, plan: Sequence[Planned]) -> Results | Failed:
            measured = here.runs.run(scenario, plan) if tenant is None else here.runs.perhaps(alone, plan)
            results = measured if isinstance(measured, Failed) else measured.results
            note(f"{'together' if tenant is None else f'{tenant} alone'}: {in_short(results)}")
            return results

        found, together = fairness(here.plan, tenants, measure)
        done = concluded(
            together,
            "fairness",
            found,
            verdict="not_valid" if found.not_valid else together.verdict,
            interrupted=len(found.light) < len(tenants) and here.runs.stop.is_set(),
            not_valid=found.not_valid,
        )
        return conclude(here.folder, done, found)
