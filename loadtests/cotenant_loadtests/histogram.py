"""HDR histogram of whole microseconds: log-linear buckets, three significant digits, merged exactly. Pure.

Below 2,048 µs each value has its own bucket; above, each power of two is cut into 1,024 buckets. A bucket answers
with its middle, so a percentile is off by at most 1/2,048 (0.05 %) of the exact one; mean, least and greatest are
exact.

A percentile p is the nearest rank: the least recorded value that at least p % of the values do not exceed. After
Gil Tene's HdrHistogram (hdrhistogram.org), whose layout of buckets this is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cotenant_loadtests.ranks import UNIT, nearest_rank
from cotenant_loadtests.results import Quantiles

Ints = NDArray[np.int64]

HIGHEST_US = 2**37 - 1
"""38 hours. What is above counts as this and in `clamped`, what is below 0 as 0."""
_PRECISION_BITS = 11
_HALF = 1 << (_PRECISION_BITS - 1)
_PER_DECADE = 10


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values in bucket `first + i`; no empty buckets at either end."""

    first: int = 0
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    count: int = 0
    sum_us: int = 0
    min_us: int = 0
    max_us: int = 0
    clamped: int = 0

    def percentile_us(self, percentile: float) -> float:
        """0 when nothing was recorded."""
        return float(self.percentiles_us([percentile])[0])

    def percentiles_us(self, percentiles: Sequence[float]) -> NDArray[np.float64]:
        return self.ranked_us([nearest_rank(percentile, self.count) for percentile in percentiles])

    def ranked_us(self, ranks: Sequence[int]) -> NDArray[np.float64]:
        """The values of these places, from 1 to `count`, in the order of size."""
        if self.min_us == self.max_us:  # as of the many pairs of tenant and model that had one request, or none
            return np.full(len(ranks), float(self.max_us))
        places = np.array(ranks, np.int64)
        buckets = self.first + np.searchsorted(np.cumsum(self.counts), places)
        exact_end = np.where(places == self.count, self.max_us, _middles(buckets))
        return np.clip(exact_end, self.min_us, self.max_us)

    @property
    def mean_us(self) -> float:
        return self.sum_us / self.count if self.count else 0.0


def histogram_of(values_us: Ints) -> Histogram:
    """Records many at once."""
    return histograms_of(np.zeros(len(values_us), np.int64), values_us).get(0, Histogram())


def histograms_of(kinds: Ints, values_us: Ints) -> dict[int, Histogram]:
    """One of each kind's values; `kinds` has that of each value, and never decreases."""
    if not len(values_us):
        return {}
    kept = np.clip(values_us, 0, HIGHEST_US)
    starts = np.flatnonzero(np.diff(kinds, prepend=kinds[0] - 1))
    buckets, ends = _buckets(kept), [*starts[1:].tolist(), len(kept)]
    firsts = np.minimum.reduceat(buckets, starts)
    of_each = (np.add.reduceat(kept, starts), np.minimum.reduceat(kept, starts), np.maximum.reduceat(kept, starts))
    numbers = zip(*(each.tolist() for each in (kinds[starts], starts, firsts, *of_each)), strict=True)
    clamped = np.concatenate([[0], np.cumsum(kept != values_us)])
    return {
        kind: Histogram(
            first,
            np.bincount(buckets[start:end] - first).astype(np.int64),
            end - start,
            sum_us,
            min_us,
            max_us,
            int(clamped[end] - clamped[start]),
        )
        for (kind, start, first, sum_us, min_us, max_us), end in zip(numbers, ends, strict=True)
    }


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Exactly what one histogram of all the values would be."""
    parts = [part for part in histograms if part.count]
    if not parts:
        return Histogram()
    first = min(part.first for part in parts)
    counts = np.zeros(max(part.first + len(part.counts) for part in parts) - first, np.int64)
    for part in parts:
        counts[part.first - first : part.first - first + len(part.counts)] += part.counts
    return Histogram(
        first,
        counts,
        sum(part.count for part in parts),
        sum(part.sum_us for part in parts),
        min(part.min_us for part in parts),
        max(part.max_us for part in parts),
        sum(part.clamped for part in parts),
    )


def quantiles_ms(histogram: Histogram, *, with_curve: bool = True) -> Quantiles:
    """As results.json has it, in milliseconds to the microsecond."""
    if not histogram.count:
        return Quantiles(count=0)
    p50, p90, p95, p99, p999 = (_ms(value) for value in histogram.percentiles_us([50, 90, 95, 99, 99.9]))
    return Quantiles(
        count=histogram.count,
        mean=_ms(histogram.mean_us),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p999=p999,
        max=_ms(histogram.max_us),
        curve=curve_ms(histogram) if with_curve else (),
    )


def percentile_of_all_ms(
    histogram: Histogram, percentile: float, succeeded: int, scheduled: int
) -> tuple[float | None, bool]:
    """(milliseconds, is it among the failures?) where failed requests count as later than all that succeeded.

    `histogram` is of the successes; a failed request counts for as many values as a success has on average (gaps
    between tokens are many, answers that are not streamed have none). No value where there is none to tell.
    """
    part = round(percentile * UNIT)  # of 100 * UNIT
    if part * scheduled > 100 * UNIT * succeeded:
        return None, True
    if not histogram.count:
        return None, False
    rank = -(-part * histogram.count * scheduled // (100 * UNIT * succeeded))
    return _ms(histogram.ranked_us([min(max(rank, 1), histogram.count)])[0]), False


def curve_ms(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    """(percentile, ms) evenly on the scale -log10(1 - p/100), ten a decade, as far as `count` can tell; then 100."""
    if not histogram.count:
        return ()
    steps = int(_PER_DECADE * math.log10(histogram.count)) + 1
    percentiles = [round(100 * (1 - 10 ** (-step / _PER_DECADE)), 6) for step in range(steps)]
    values = histogram.percentiles_us([*percentiles, 100.0])
    return tuple((at, _ms(value)) for at, value in zip([*percentiles, 100.0], values, strict=True))


def _buckets(values_us: Ints) -> Ints:
    shift: Ints = np.maximum(np.frexp(values_us.astype(np.float64))[1].astype(np.int64) - _PRECISION_BITS, 0)
    return shift * _HALF + (values_us >> shift)


def _middles(buckets: Ints) -> NDArray[np.float64]:
    shift: Ints = np.maximum(buckets // _HALF - 1, 0)
    lowest: Ints = (buckets - shift * _HALF) << shift
    return lowest + ((1 << shift) - 1) / 2


def _ms(value_us: float) -> float:
    return round(float(value_us) / 1000, 3)
