"""What the measured requests amount to: in all, per tenant, per model, and per tenant × model. Pure.

- `scheduled` = `succeeded` + `failed`. Timeouts, refusals, `unfinished` are failures; `interrupted` counts nowhere.
- `success_rate` = succeeded / scheduled. `good`: succeeded within `goodput` of the scenario; without it, succeeded.
- Rates are per second of the window, by when a request was scheduled.
- Tokens are those of successes: half an answer serves nobody.

Latencies are defined in columns.py, percentiles in histogram.py. The histograms of a tenant are those of its models
merged, which is exact.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cotenant_loadtests.columns import OUTCOMES, Columns, tokens_in_parts
from cotenant_loadtests.histogram import Histogram, Ints, histograms_of, merge, percentile_of_all_ms, quantiles_ms
from cotenant_loadtests.record import NEVER, SUCCESSES
from cotenant_loadtests.results import ALL, Group
from cotenant_loadtests.spec import Goodput
from cotenant_loadtests.window import Window

_NOTHING = Histogram()


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
    tallies: Mapping["_Pair", Tally]
    """Of the total, each tenant and each pair, by the group's tenant and model."""

    def percentile_of_all_ms(self, group: Group, latency: str, percentile: float) -> tuple[float | None, bool]:
        """(`ttft`, `itl`, `tpot` or `e2e`; is it among the failures?): see histogram.py."""
        histogram: Histogram = getattr(self.tallies[group.tenant, group.model], latency)
        return percentile_of_all_ms(histogram, percentile, group.succeeded, group.scheduled)


def measure(measured: Columns, window: Window, goodput: Goodput | None) -> Measures:
    """`measured`: the rows of the window."""
    pairs = _tallies(measured, goodput)
    tenants = {name: _add(tallies) for name, tallies in _by(pairs, lambda pair: pair[0])}
    models = {name: _add(tallies) for name, tallies in _by(pairs, lambda pair: pair[1])}
    total = _add(tenants.values())
    return Measures(
        total=_group(ALL, ALL, total, window),
        tenants=tuple(_group(tenant, ALL, tally, window) for tenant, tally in tenants.items()),
        models=tuple(_group(ALL, model, tally, window) for model, tally in models.items()),
        groups=tuple(_group(*pair, tally, window, with_curves=False) for pair, tally in pairs.items()),
        tallies={(ALL, ALL): total} | {(tenant, ALL): tally for tenant, tally in tenants.items()} | pairs,
    )


_Pair = tuple[str, str]
"""Tenant and model."""


def _by(tallies: Mapping[_Pair, Tally], name: Callable[[_Pair], str]) -> list[tuple[str, list[Tally]]]:
    found: dict[str, list[Tally]] = {}
    for pair, tally in tallies.items():
        found.setdefault(name(pair), []).append(tally)
    return sorted(found.items())


def _tallies(measured: Columns, goodput: Goodput | None) -> dict[_Pair, Tally]:
    """In the order of their names. All pairs are counted in one go: there may be as many of them as rows."""
    models = len(measured.names.models)
    pairs, kinds = np.unique(measured.tenant * models + measured.model, return_inverse=True)
    order = np.argsort(kinds, kind="stable")
    columns, kinds = measured.rows(order), kinds[order]
    success = columns.success
    outcomes = np.bincount(kinds * len(OUTCOMES) + columns.outcome, minlength=len(pairs) * len(OUTCOMES))
    counts = [
        np.bincount(kinds, values * success, len(pairs)).astype(np.int64).tolist()
        for values in (columns.good(goodput), columns.prompt_tokens, columns.tokens)
    ]
    latencies = [_known(kinds, each) for each in (columns.ttft_us, columns.tpot_us, columns.e2e_us)]
    ttft, tpot, e2e = ([each.get(kind, _NOTHING) for kind in range(len(pairs))] for each in latencies)
    itl = _gaps(kinds, columns)
    return {
        (columns.names.tenants[pair // models], columns.names.models[pair % models]): Tally(
            outcomes=outcomes[kind * len(OUTCOMES) : (kind + 1) * len(OUTCOMES)],
            good=counts[0][kind],
            prompt_tokens=counts[1][kind],
            completion_tokens=counts[2][kind],
            ttft=ttft[kind],
            itl=merge(itl.get(kind, ())),
            tpot=tpot[kind],
            e2e=e2e[kind],
        )
        for kind, pair in enumerate(pairs.tolist())
    }


def _known(kinds: Ints, latencies_us: Ints) -> dict[int, Histogram]:
    known = latencies_us != NEVER
    return histograms_of(kinds[known], latencies_us[known])


def _gaps(kinds: Ints, columns: Columns) -> dict[int, list[Histogram]]:
    """Of each kind in as many parts as its rows are read in."""
    streamed = columns.success & columns.streamed
    kinds, found = kinds[streamed], dict[int, list[Histogram]]()
    for part in tokens_in_parts(columns.rows(streamed)):
        known = part.gap_us != NEVER
        for kind, histogram in histograms_of(kinds[part.row[known]], part.gap_us[known]).items():
            found.setdefault(kind, []).append(histogram)
    return found


def _add(some: Iterable[Tally]) -> Tally:
    tallies = list(some)
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


def _group(tenant: str, model: str, tally: Tally, window: Window, *, with_curves: bool = True) -> Group:
    """Curves are drawn of few and take most of the room, so pairs have none."""
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
        errors={outcome: count for outcome, count in counts.items() if outcome not in SUCCESSES},
        success_rate=succeeded / scheduled if scheduled else 1.0,
        good=tally.good,
        goodput_per_s=window.per_s(tally.good),
        offered_per_s=window.per_s(scheduled),
        succeeded_per_s=window.per_s(succeeded),
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        completion_tokens_per_s=window.per_s(tally.completion_tokens),
        ttft_ms=quantiles_ms(tally.ttft, with_curve=with_curves),
        itl_ms=quantiles_ms(tally.itl, with_curve=with_curves),
        tpot_ms=quantiles_ms(tally.tpot, with_curve=with_curves),
        e2e_ms=quantiles_ms(tally.e2e, with_curve=with_curves),
    )
