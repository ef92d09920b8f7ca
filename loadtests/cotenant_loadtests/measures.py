"""What the measured requests amount to: in all, per tenant, per model, and per tenant × model. Pure.

- `scheduled` = `succeeded` + `failed`. Timeouts, refusals, `unfinished` are failures; `interrupted` counts nowhere.
- `success_rate` = succeeded / scheduled. `good`: succeeded within `goodput` of the scenario; without it, succeeded.
- Rates are per second of the window, by when a request was scheduled.
- Tokens are those of successes: half an answer serves nobody.

Latencies are defined in columns.py, percentiles in histogram.py. The histograms of a tenant are those of its models
merged, which is exact.
"""

from dataclasses import dataclass

import numpy as np

from cotenant_loadtests.columns import OUTCOMES, Columns, tokens_in_parts
from cotenant_loadtests.histogram import Histogram, Ints, histogram_of, merge, quantiles_ms
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.results import Group
from cotenant_loadtests.spec import Goodput
from cotenant_loadtests.window import Window

ALL = "*"


@dataclass(frozen=True, slots=True)
class Tally:
    """What adds up: counts and histograms of some requests."""

    outcomes: Ints
    """By OUTCOMES."""
    good: int
    prompt_tokens: int
    completion_tokens: int
    ttft: Histogram
    itl: Histogram
    tpot: Histogram
    e2e: Histogram


@dataclass(frozen=True, slots=True)
class Measures:
    total: Group
    tenants: tuple[Group, ...]
    models: tuple[Group, ...]
    groups: tuple[Group, ...]


def measure(measured: Columns, window: Window, goodput: Goodput | None) -> Measures:
    """`measured`: the rows of the window."""
    tallies = {pair: _tally(measured.rows(rows), goodput) for pair, rows in _by_tenant_and_model(measured).items()}

    def group(tenant: str, model: str) -> Group:
        return _group(
            tenant, model, _add([tally for pair, tally in tallies.items() if _in(pair, tenant, model)]), window
        )

    return Measures(
        total=group(ALL, ALL),
        tenants=tuple(group(tenant, ALL) for tenant in sorted({tenant for tenant, _ in tallies})),
        models=tuple(group(ALL, model) for model in sorted({model for _, model in tallies})),
        groups=tuple(_group(*pair, tally, window) for pair, tally in sorted(tallies.items())),
    )


def _in(pair: tuple[str, str], tenant: str, model: str) -> bool:
    return tenant in (ALL, pair[0]) and model in (ALL, pair[1])


def _by_tenant_and_model(columns: Columns) -> dict[tuple[str, str], Ints]:
    pairs = columns.tenant * len(columns.names.models) + columns.model
    order = np.argsort(pairs, kind="stable")
    kinds, starts = np.unique(pairs[order], return_index=True)
    names = [divmod(int(kind), len(columns.names.models)) for kind in kinds]
    parts = np.split(order, starts[1:]) if len(kinds) else []
    return {
        (columns.names.tenants[tenant], columns.names.models[model]): rows
        for (tenant, model), rows in zip(names, parts, strict=True)
    }


def _tally(columns: Columns, goodput: Goodput | None) -> Tally:
    success = columns.success
    return Tally(
        outcomes=np.bincount(columns.outcome, minlength=len(OUTCOMES)),
        good=int(np.count_nonzero(columns.good(goodput))),
        prompt_tokens=int(columns.prompt_tokens[success].sum()),
        completion_tokens=int(columns.tokens[success].sum()),
        ttft=_known(columns.ttft_us),
        itl=_gaps(columns.rows(success & columns.streamed)),
        tpot=_known(columns.tpot_us),
        e2e=_known(columns.e2e_us),
    )


def _known(latencies_us: Ints) -> Histogram:
    return histogram_of(latencies_us[latencies_us != NEVER])


def _gaps(columns: Columns) -> Histogram:
    return merge(_known(part.gap_us) for part in tokens_in_parts(columns))


def _add(tallies: list[Tally]) -> Tally:
    return Tally(
        outcomes=sum((tally.outcomes for tally in tallies), np.zeros(len(OUTCOMES), np.int64)),
        good=sum(tally.good for tally in tallies),
        prompt_tokens=sum(tally.prompt_tokens for tally in tallies),
        completion_tokens=sum(tally.completion_tokens for tally in tallies),
        ttft=merge(tally.ttft for tally in tallies),
        itl=merge(tally.itl for tally in tallies),
        tpot=merge(tally.tpot for tally in tallies),
        e2e=merge(tally.e2e for tally in tallies),
    )


def _group(tenant: str, model: str, tally: Tally, window: Window) -> Group:
    counts = {outcome: int(count) for outcome, count in zip(OUTCOMES, tally.outcomes, strict=True) if count}
    cancelled = counts.get("cancelled", 0)
    scheduled, succeeded = sum(counts.values()), counts.get("ok", 0) + cancelled
    return Group(
        tenant=tenant,
        model=model,
        scheduled=scheduled,
        succeeded=succeeded,
        cancelled=cancelled,
        failed=scheduled - succeeded,
        errors={outcome: count for outcome, count in counts.items() if outcome not in ("ok", "cancelled")},
        success_rate=succeeded / scheduled if scheduled else 1.0,
        good=tally.good,
        goodput_per_s=window.per_s(tally.good),
        offered_per_s=window.per_s(scheduled),
        succeeded_per_s=window.per_s(succeeded),
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        completion_tokens_per_s=window.per_s(tally.completion_tokens),
        ttft_ms=quantiles_ms(tally.ttft),
        itl_ms=quantiles_ms(tally.itl),
        tpot_ms=quantiles_ms(tally.tpot),
        e2e_ms=quantiles_ms(tally.e2e),
    )
