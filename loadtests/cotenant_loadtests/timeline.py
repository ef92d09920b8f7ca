"""The run over time, for all tenants together and for each: some 60 to 240 bins of a width that reads well. Pure."""

import numpy as np
from numpy.typing import NDArray

from cotenant_loadtests.columns import Bools, Columns, tokens_in_parts
from cotenant_loadtests.histogram import Ints
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.results import ALL, Series, Timeline

MOST_BINS = 240
_WIDTHS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def bin_width_s(duration_s: float) -> float:
    """The least width that reads well and gives at most MOST_BINS bins; whole hours beyond ten days."""
    fits = (width for width in _WIDTHS_S if duration_s <= width * MOST_BINS)
    return float(next(fits, 3600 * -(-duration_s // (3600 * MOST_BINS))))


def timeline_of(columns: Columns, run_end_us: int) -> Timeline:
    """Of all rows, measured or not, until the last had ended. `interrupted` ones count only as in flight."""
    bin_s = bin_width_s(run_end_us / 1e6)
    bin_us = round(bin_s * 1e6)
    bins = max(1, -(-run_end_us // bin_us))
    tokens = _tokens(columns, bin_us, bins)
    everybody = np.ones(len(columns), np.bool_)
    series = [_series(ALL, columns, everybody, tokens.sum(axis=0), bin_us)]
    for number, name in enumerate(columns.names.tenants):
        series.append(_series(name, columns, columns.tenant == number, tokens[number], bin_us))
    return Timeline(bin_s=bin_s, series=tuple(series))


def _series(tenant: str, every: Columns, wanted: Bools, tokens: NDArray[np.float64], bin_us: int) -> Series:
    columns, bins = every.rows(wanted), len(tokens)
    counted = columns.rows(~columns.had("interrupted"))
    at = _bin(counted.scheduled_us, bin_us, bins)
    p50, p99 = _percentiles_ms(counted, at, bins)
    return Series(
        tenant=tenant,
        scheduled=_whole(np.bincount(at, minlength=bins)),
        succeeded=_whole(np.bincount(at[counted.success], minlength=bins)),
        failed=_whole(np.bincount(at[~counted.success], minlength=bins)),
        in_flight=_in_flight(columns, bin_us, bins),
        completion_tokens=_whole(np.diff(np.rint(np.cumsum(tokens)), prepend=0)),
        ttft_p50_ms=p50,
        ttft_p99_ms=p99,
    )


def _bin(at_us: Ints, bin_us: int, bins: int) -> Ints:
    return np.clip(at_us // bin_us, 0, bins - 1)


def _in_flight(columns: Columns, bin_us: int, bins: int) -> tuple[int, ...]:
    """Sent and not ended, at the end of each bin: what ends at that moment has ended."""
    sent = columns.rows(columns.sent_us != NEVER)
    ends = np.arange(1, bins + 1) * bin_us
    ended = np.sort(sent.end_us[sent.end_us != NEVER])
    begun = np.sort(sent.sent_us)
    return _whole(np.searchsorted(begun, ends, side="right") - np.searchsorted(ended, ends, side="right"))


def _percentiles_ms(columns: Columns, at: Ints, bins: int) -> tuple[tuple[float | None, ...], ...]:
    """p50 and p99 by nearest rank of the TTFT of the requests that were scheduled in each bin."""
    ttft_us = columns.ttft_us
    known = ttft_us != NEVER
    ttft_us, at = ttft_us[known], at[known]
    ordered = ttft_us[np.lexsort((ttft_us, at))]
    counts = np.bincount(at, minlength=bins)
    starts = np.cumsum(counts) - counts

    def percentile(percent: int) -> tuple[float | None, ...]:
        ranks = starts + np.maximum(-(-counts * percent // 100) - 1, 0)
        return tuple(
            float(ordered[rank]) / 1000 if count else None for rank, count in zip(ranks, counts, strict=True)
        )

    return percentile(50), percentile(99)


def _tokens(columns: Columns, bin_us: int, bins: int) -> NDArray[np.float64]:
    """(tenants, bins): completion tokens when they came, of every request whatever became of it."""
    tokens = np.zeros(len(columns.names.tenants) * bins)
    for part in tokens_in_parts(columns):
        place = columns.tenant[part.row] * bins + _bin(part.at_us, bin_us, bins)
        tokens += np.bincount(place, weights=part.tokens, minlength=len(tokens))
    return tokens.reshape(len(columns.names.tenants), bins)


def _whole(values: NDArray[np.generic]) -> tuple[int, ...]:
    return tuple(int(value) for value in values.tolist())
