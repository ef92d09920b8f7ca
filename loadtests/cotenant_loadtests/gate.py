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

A limit for which nothing was measured is missed, with the value None: silence is no proof.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from cotenant_loadtests import names
from cotenant_loadtests.results import Fairness, Group, Quantiles, SloResult, Verdict
from cotenant_loadtests.spec import Limit, Scenario

ALL = "*"
LATENCIES = ("ttft", "itl", "tpot", "e2e")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
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


def evaluate(slo: Mapping[str, Limit], groups: Sequence[Group], fairness: Fairness) -> tuple[SloResult, ...]:
    """`groups`: the total, each tenant's, and each tenant × model's; of others there is nothing to measure."""
    by_place = {_place(group): group for group in groups if group.scheduled}
    return tuple(
        _judge(name, where, number, by_place.get(where), fairness)
        for name, limit in slo.items()
        for where, number in (limit.items() if isinstance(limit, Mapping) else [(ALL, limit)])
    )


def verdict(valid: bool, slo: Sequence[SloResult]) -> Verdict:
    """What is not valid has neither passed nor missed."""
    if not valid:
        return "not_valid"
    return "passed" if all(result.passed for result in slo) else "missed"


def value_of(slo: str, group: Group | None) -> float | None:
    """Of any of SLOS but `jain`; None where nothing was measured."""
    if group is None or not group.scheduled:
        return None
    if slo in _VALUES:
        return float(_VALUES[slo](group))
    latency, statistic, _ = slo.split("_")
    quantiles: Quantiles = getattr(group, f"{latency}_ms")
    return float(getattr(quantiles, statistic)) if quantiles.count else None


def bound(slo: str) -> str:
    return "at most" if slo in _AT_MOST else "at least"


def sentence(result: SloResult) -> str:
    """`ttft_p99_ms of search is 612.3, not at most 500`."""
    limit = f"{bound(result.slo)} {result.limit:g}"
    if result.value is None:
        return f"{place(result)}: nothing was measured, so {limit} is not shown"
    return f"{place(result)} is {result.value:.6g}, {'' if result.passed else 'not '}{limit}"


def place(result: SloResult) -> str:
    """`success_rate`, `ttft_p99_ms of search`."""
    return result.slo if result.where == ALL else f"{result.slo} of {result.where}"


def _judge(slo: str, where: str, limit: float, group: Group | None, fairness: Fairness) -> SloResult:
    value = fairness.jain if slo == "jain" else value_of(slo, group)
    passed = value is not None and (value <= limit if slo in _AT_MOST else value >= limit)
    return SloResult(slo=slo, where=where, limit=limit, value=value, passed=passed)


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
