"""`fairness`: the scenario whole, then each light tenant's own requests alone; pure.

A light tenant offers less than its share of the tokens: less than 1/n of them, where there are n tenants. What it
feels beside the others, over what the same requests feel alone, is what the others cost it.
"""

from collections.abc import Callable, Sequence

from cotenant_loadtests.extras import FairnessFound, LightTenant, TenantService, reasons
from cotenant_loadtests.gate import value_of
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Group, Results
from cotenant_loadtests.run_output import Failed, RunError
from cotenant_loadtests.variants import offered_tokens, only_tenant

Measure = Callable[[str | None, Sequence[Planned]], Results | Failed]
"""(tenant, or None for all together, and the requests) → results. All together have some."""


def fairness(plan: Sequence[Planned], light: Sequence[str], measure: Measure) -> tuple[FairnessFound, Results]:
    """What was found, and the results of the run together. A run that is interrupted or fails ends it early."""
    together, alone, failed = measure(None, plan), dict[str, Results](), list[str]()
    if isinstance(together, Failed):
        raise RunError(together.why)
    for tenant in light:
        if together.interrupted or any(results.interrupted for results in alone.values()):
            break
        results = measure(tenant, only_tenant(plan, tenant))
        if isinstance(results, Failed):
            failed.append(f"{tenant} alone: {results.why}")
            break
        alone[tenant] = results
    whole = {tenant: results for tenant, results in alone.items() if not results.interrupted}
    series = {series.tenant: series.completion_tokens for series in together.timeline.series}
    offered = offered_by(plan)
    found = FairnessFound(
        jain=together.fairness.jain,
        backlogged_s=together.fairness.backlogged_s,
        bin_s=together.timeline.bin_s,
        tenants=tuple(
            TenantService(
                tenant=tenant,
                light=tenant in light,
                offered_tokens=tokens,
                offered_share=tokens / max(1, sum(offered.values())),
                completion_tokens=series.get(tenant, ()),
            )
            for tenant, tokens in offered.items()
        ),
        light=tuple(_felt(tenant, together, results) for tenant, results in whole.items()),
        not_valid=(
            *reasons({"together": together} | {f"{tenant} alone": one for tenant, one in alone.items()}),
            *failed,
        ),
    )
    return found, together


def light_tenants(plan: Sequence[Planned], named: Sequence[str] = ()) -> list[str]:
    """The named ones, else those that offer less than 1/n of the tokens. Raises RefusedError where there are none."""
    offered = offered_by(plan)
    unknown = [tenant for tenant in named if tenant not in offered]
    if unknown:
        raise RefusedError(f"--light {unknown[0]}: the plan has no such tenant; it has {', '.join(offered)}")
    if len(offered) < 2:
        raise RefusedError(f"streams: the only tenant is {', '.join(offered)}; fairness is between two or more")
    light = list(named) or [
        tenant for tenant, tokens in offered.items() if tokens * len(offered) < sum(offered.values())
    ]
    if not light:
        raise RefusedError("streams: all tenants offer the same number of tokens; name one with --light")
    return light


def offered_by(plan: Sequence[Planned]) -> dict[str, int]:
    """Tenant → tokens, in alphabetical order. A request without any (tensors) counts as one."""
    offered = dict.fromkeys(sorted({request.tenant for request in plan}), 0)
    for request in plan:
        offered[request.tenant] += max(1, offered_tokens(request))
    return offered


def _felt(tenant: str, together: Results, alone: Results) -> LightTenant:
    beside, solo = _group(tenant, together), _group(tenant, alone)
    p50, p99 = (value_of("ttft_p50_ms", beside), value_of("ttft_p99_ms", beside))
    solo_p50, solo_p99 = (value_of("ttft_p50_ms", solo), value_of("ttft_p99_ms", solo))
    return LightTenant(
        tenant=tenant,
        requests=beside.scheduled if beside else 0,
        together_ttft_p50_ms=p50,
        together_ttft_p99_ms=p99,
        alone_ttft_p50_ms=solo_p50,
        alone_ttft_p99_ms=solo_p99,
        ratio_p50=_ratio(p50, solo_p50),
        ratio_p99=_ratio(p99, solo_p99),
        together_success_rate=beside.success_rate if beside else 0.0,
        alone_success_rate=solo.success_rate if solo else 0.0,
    )


def _group(tenant: str, results: Results) -> Group | None:
    return next((group for group in results.tenants if group.tenant == tenant), None)


def _ratio(together: float | None, alone: float | None) -> float | None:
    return together / alone if together is not None and alone else None
