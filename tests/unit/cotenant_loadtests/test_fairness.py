"""Light tenants, together with the others and alone."""

from collections.abc import Sequence

import pytest
from tests.builders.load_records import answered, planned, run_of, scenario_of
from tests.builders.load_results import results

from cotenant_loadtests.extras import FairnessFound
from cotenant_loadtests.fairness import fairness, light_tenants
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.summary import summarise

PLAN = [
    *(planned(id=number, tenant="loud", at_s=number / 10, max_tokens=100) for number in range(40)),
    *(planned(id=40 + number, tenant="quiet", at_s=float(number), max_tokens=10) for number in range(4)),
]


def served(tenant: str | None, plan: Sequence[Planned]) -> Results:
    """A quiet request has its first token after 30 ms beside the loud ones, and after 10 ms alone."""
    requests = [
        answered(at_s=one.at_s or 0.0, ttft_ms=10.0 if tenant == "quiet" else 30.0, gaps_ms=[1], tenant=one.tenant)
        for one in plan
    ]
    return summarise(scenario_of(), run_of(requests), "http://127.0.0.1:1")


def test_a_run_alone_that_fails_does_not_lose_the_one_together() -> None:
    def measure(tenant: str | None, plan: Sequence[Planned]) -> Results | Failed:
        return served(tenant, plan) if tenant is None else Failed("worker 0 died")

    answer, together = fairness(PLAN, ("quiet",), measure)

    assert (answer.light, answer.not_valid) == ((), ("quiet alone: worker 0 died",))
    assert together.total.scheduled == 44


def found(light: Sequence[str] = ("quiet",)) -> FairnessFound:
    return fairness(PLAN, light, served)[0]


def test_a_light_tenants_first_tokens_together_are_held_against_those_alone() -> None:
    (quiet,) = found().light

    assert (quiet.tenant, quiet.requests) == ("quiet", 4)
    assert (quiet.together_ttft_p50_ms, quiet.alone_ttft_p50_ms) == (30.0, 10.0)
    assert (quiet.ratio_p50, quiet.ratio_p99) == (3.0, 3.0)


def test_service_of_each_tenant_over_time_is_kept_with_what_it_offered() -> None:
    loud, quiet = found().tenants

    assert (loud.tenant, loud.light, quiet.light) == ("loud", False, True)
    assert (loud.offered_tokens, quiet.offered_tokens) == (40 * 108, 4 * 18)
    assert loud.offered_share + quiet.offered_share == pytest.approx(1)
    assert (sum(loud.completion_tokens), sum(quiet.completion_tokens)) == (80, 8)


def test_only_light_tenants_are_measured_alone_each_with_its_own_requests() -> None:
    asked: list[tuple[str | None, int]] = []

    def measure(tenant: str | None, plan: Sequence[Planned]) -> Results:
        asked.append((tenant, len(plan)))
        return served(tenant, plan)

    fairness(PLAN, ["quiet"], measure)

    assert asked == [(None, 44), ("quiet", 4)]


def test_a_run_that_is_not_valid_is_named() -> None:
    def measure(tenant: str | None, plan: Sequence[Planned]) -> Results:
        return results("not_valid") if tenant == "quiet" else served(tenant, plan)

    assert fairness(PLAN, ["quiet"], measure)[0].not_valid == ("quiet alone: too late.",)


def test_an_interruption_leaves_what_was_measured() -> None:
    answer, together = fairness(PLAN, ["quiet"], lambda tenant, plan: results(interrupted=True, name=str(tenant)))

    assert answer.light == ()
    assert together.name == "None"


def test_light_is_who_offers_less_than_its_share_of_the_tokens() -> None:
    assert light_tenants(PLAN) == ["quiet"]
    assert light_tenants(PLAN, ["loud"]) == ["loud"]


def test_requests_without_tokens_count_as_one_each() -> None:
    plan = [planned(tenant=tenant, messages=()) for tenant in ("few", "many", "many")]

    assert light_tenants(plan) == ["few"]


@pytest.mark.parametrize(
    ("plan", "named", "says"),
    [
        (PLAN, ["nobody"], "--light nobody: the plan has no such tenant; it has loud, quiet"),
        (PLAN[:40], [], "the only tenant is loud"),
        ([PLAN[0], planned(tenant="other", max_tokens=100)], [], "name one with --light"),
    ],
)
def test_without_a_light_tenant_there_is_nothing_to_find(plan: list[Planned], named: list[str], says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        light_tenants(plan, named)
