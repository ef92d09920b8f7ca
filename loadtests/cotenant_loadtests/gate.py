"""The gate: limits of a scenario's `slo`, checked against what was measured. Pure.

    slo:
      success_rate: 0.999                        # of the whole run
      ttft_p99_ms: {search: 500, batch/llama: 5000}   # of a tenant; of a tenant's requests to a model

| Name | Passes when the value is | What |
| --- | --- | --- |
| `ttft_p99_ms`, … | at most the limit | ttft, itl, tpot, e2e × mean, p50, p90, p95, p99, p999, max |
| `error_count` | at most the limit | failed requests |
| `success_rate` | at least the limit | succeeded / scheduled |
| `goodput_rate` | at least the limit | good / scheduled |
| `goodput_per_s` | at least the limit | good requests per second |
| `tokens_per_s` | at least the limit | completion tokens per second, of successes |
| `jain` | at least the limit | Jain's index over tenants backlogged together; only for the whole run |

Here p50 to p999 are of all scheduled requests, and a failed one is later than any limit: who turns requests away is
not quick. Where such a percentile falls among the failures there is no value and the limit is missed. mean and max,
like every latency outside the gate, are of successes.

A limit for which nothing was measured is missed, with the value None: silence is no proof.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cotenant_loadtests import names
from cotenant_loadtests.results import ALL, Fairness, Group, Quantiles, SloResult, Verdict
from cotenant_loadtests.spec import Limit, Scenario

if TYPE_CHECKING:
    from cotenant_loadtests.measures import Measures

LATENCIES = ("ttft", "itl", "tpot", "e2e")
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
STATISTICS = ("mean", *PERCENTILES, "max")
LATENCY_SLOS = tuple(f"{latency}_{statistic}_ms" for latency in LATENCIES for statistic in STATISTICS)
SHARES = ("success_rate", "goodput_rate", "jain")
_VALUES: dict[str, Callable[[Group], float]] = {
    "error_count": lambda group: group.failed,
    "success_rate": lambda group: group.success_rate,
    "goodput_rate": lambda group: group.good / group.scheduled,
    "goodput_per_s": lambda group: group.goodput_per_s,
    "tokens_per_s": lambda group: group.completion_tokens_per_s,
}
SLOS = (*LATENCY_SLOS, *_VALUES, "jain")
_AT_MOST = (*LATENCY_SLOS, "error_count")


def check_slo_names(scenario: Scenario) -> list[str]:
    """A sentence for each limit that could never be checked; none when all can."""
    sent = _sent(scenario)
    problems = []
    for slo, limit in scenario.slo.items():
        if slo not in SLOS:
            problems.append(f"slo.{slo}: there is no such figure; {_instead(slo, SLOS)}")
            continue
        if isinstance(limit, Mapping):
            problems += _check_places(slo, limit, sent)
        problems += _check_shares(slo, limit)
    return problems


def evaluate(slo: Mapping[str, Limit], measures: "Measures", fairness: Fairness) -> tuple[SloResult, ...]:
    """A limit may be of the total, of a tenant, or of a tenant × model."""
    groups = [measures.total, *measures.tenants, *measures.groups]
    by_place = {_place(group): group for group in groups if group.scheduled}
    return tuple(
        _judge(name, where, number, by_place.get(where), measures, fairness)
        for name, limit in slo.items()
        for where, number in (limit.items() if isinstance(limit, Mapping) else [(ALL, limit)])
    )


def verdict(valid: bool, slo: Sequence[SloResult]) -> Verdict:
    """What is not valid has neither passed nor missed."""
    if not valid:
        return "not_valid"
    return "passed" if all(result.passed for result in slo) else "missed"


def value_of(slo: str, group: Group | None) -> float | None:
    """Of any of SLOS but `jain`, latencies of successes; None where nothing was measured."""
    if group is None or not group.scheduled:
        return None
    if slo in _VALUES:
        return float(_VALUES[slo](group))
    latency, statistic = _parts(slo)
    quantiles: Quantiles = getattr(group, f"{latency}_ms")
    return float(getattr(quantiles, statistic)) if quantiles.count else None


def bound(slo: str) -> str:
    return "at most" if slo in _AT_MOST else "at least"


def sentence(result: SloResult) -> str:
    """`ttft_p99_ms of search is 612.3, not at most 500`."""
    limit = f"{bound(result.slo)} {result.limit:g}"
    if result.value is None:
        return f"{place(result)}: {why_no_value(result)}, so {limit} is not shown"
    return f"{place(result)} is {result.value:.6g}, {'' if result.passed else 'not '}{limit}"


def why_no_value(result: SloResult) -> str:
    """`more than 1 % of its requests failed`, of a result without a value."""
    if not result.among_failures:
        return "nothing was measured"
    above = 100 - PERCENTILES[_parts(result.slo)[1]]
    whose = "the" if result.where == ALL else "its"
    return f"more than {above:.3g} % of {whose} requests failed"


def measured(result: SloResult) -> str:
    """The value, or why there is none."""
    if result.value is None:
        return why_no_value(result)
    return f"{result.value:,.0f}" if abs(result.value) >= 10_000 else f"{result.value:.4g}"


def place(result: SloResult) -> str:
    """`success_rate`, `ttft_p99_ms of search`."""
    return result.slo if result.where == ALL else f"{result.slo} of {result.where}"


def _judge(
    slo: str, where: str, limit: float, group: Group | None, measures: "Measures", fairness: Fairness
) -> SloResult:
    among_failures = False
    if slo == "jain":
        value = fairness.jain
    elif group is not None and slo in LATENCY_SLOS and _parts(slo)[1] in PERCENTILES:
        latency, statistic = _parts(slo)
        value, among_failures = measures.percentile_of_all_ms(group, latency, PERCENTILES[statistic])
    else:
        value = value_of(slo, group)
    passed = value is not None and (value <= limit if slo in _AT_MOST else value >= limit)
    return SloResult(slo=slo, where=where, limit=limit, value=value, passed=passed, among_failures=among_failures)


def _parts(latency_slo: str) -> tuple[str, str]:
    """`ttft_p99_ms` → `ttft`, `p99`."""
    latency, statistic, _ = latency_slo.split("_")
    return latency, statistic


def _place(group: Group) -> str:
    """`*`, `tenant`, `tenant/model`; a model's name may have slashes, a tenant's has none."""
    return group.tenant if group.model == ALL else f"{group.tenant}/{group.model}"


_Sent = Mapping[str, Sequence[frozenset[str]]]
"""Tenant → the models of each of its streams. Pairs are not listed: many tenants may share many models."""


def _sent(scenario: Scenario) -> _Sent | None:
    """None where names cannot be expanded, which is told where streams are checked."""
    sent: dict[str, list[frozenset[str]]] = {}
    try:
        for stream in scenario.streams:
            models = frozenset(names.expand(stream.model.names))
            for tenant in names.expand(stream.tenant.names):
                sent.setdefault(tenant, []).append(models)
    except ValueError:
        return None
    return sent


def _check_places(slo: str, limits: Mapping[str, float], sent: _Sent | None) -> list[str]:
    if slo == "jain":
        return ["slo.jain: has a value per tenant, but tells of all tenants together; write one number"]
    if not limits:
        return [f"slo.{slo}: has no limit; write a number, or one for a tenant: {{search: 500}}"]
    return [
        f"slo.{slo}.{where}: no stream sends such requests; {_instead(where, _near(where, sent))}"
        for where in limits
        if sent is not None and not _sends(sent, where)
    ]


def _sends(sent: _Sent, where: str) -> bool:
    tenant, slash, model = where.partition("/")
    return tenant in sent and (not slash or any(model in models for models in sent[tenant]))


def _near(where: str, sent: _Sent | None) -> list[str]:
    """Places that may have been meant: the tenants, or what the tenant sends to."""
    tenant, slash, _ = where.partition("/")
    models = sorted({model for some in (sent or {}).get(tenant, ()) for model in some}) if slash else []
    return [f"{tenant}/{model}" for model in models] or sorted(sent or ())


def _check_shares(slo: str, limit: object) -> list[str]:
    if slo not in SHARES:
        return []
    places = {f"slo.{slo}.{where}": number for where, number in limit.items()} if isinstance(limit, Mapping) else {}
    return [
        f"{place}: {number:g} is above 1; it is a share, so 99 % is 0.99"
        for place, number in (places or {f"slo.{slo}": limit}).items()
        if isinstance(number, int | float) and number > 1
    ]


def _instead(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = ", ".join(known[:12])
    return f"known: {shown}{', …' if len(known) > 12 else ''}"
