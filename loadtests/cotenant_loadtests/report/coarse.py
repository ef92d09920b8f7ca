"""A series over time with no more points than a picture can show; pure."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cotenant_loadtests.results import ALL, Series, Timeline

MOST_BINS = 240
FEW = 40
REQUESTS_IN_A_POINT = 5
"""Fewer, and a picture shows the dice of a Poisson process rather than its rate."""
Value = float | None
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Drawn:
    """One tenant: a value for each bin, `bin_s` wide."""

    tenant: str
    bin_s: float
    scheduled_per_s: tuple[Value, ...]
    succeeded_per_s: tuple[Value, ...]
    failed: tuple[int, ...]
    in_flight: tuple[Value, ...]
    tokens_per_s: tuple[Value, ...]
    ttft_p50_ms: tuple[Value, ...]
    ttft_p99_ms: tuple[Value, ...]

    def points(self, values: Sequence[Value]) -> list[tuple[float, Value]]:
        """Each at the middle of its bin."""
        return [((i + 0.5) * self.bin_s, value) for i, value in enumerate(values)]

    @property
    def mostly_failed(self) -> list[bool]:
        """Did more than half of what was scheduled in a bin fail?"""
        scheduled = [(rate or 0.0) * self.bin_s for rate in self.scheduled_per_s]
        return [bad > all_of_it / 2 for bad, all_of_it in zip(self.failed, scheduled, strict=True)]

    def telling(self, values: Sequence[Value]) -> list[Value]:
        """Latencies without those of bins that mostly failed: a few quick answers there would look like recovery."""
        return [None if bad else value for value, bad in zip(values, self.mostly_failed, strict=True)]

    @property
    def starts_s(self) -> list[float]:
        return [i * self.bin_s for i in range(len(self.failed))]


def drawn(timeline: Timeline, together: int) -> dict[str, Drawn]:
    """Tenant → its series, each `together` neighbouring bins taken as one."""
    return {series.tenant: coarse(series, timeline.bin_s, together) for series in timeline.series}


def others_than(timeline: Timeline, named: Collection[str]) -> Series | None:
    """All tenants but the `named` ones as one, without latencies: percentiles do not add up. None: there are none."""
    others = [series for series in timeline.series if series.tenant not in named and series.tenant != ALL]
    if not others:
        return None
    count = len(others[0].scheduled)

    def total(of: Callable[[Series], Sequence[int]]) -> tuple[int, ...]:
        return tuple(sum(values) for values in zip(*(of(series) for series in others), strict=True))

    return Series(
        tenant="others",
        scheduled=total(lambda one: one.scheduled),
        succeeded=total(lambda one: one.succeeded),
        failed=total(lambda one: one.failed),
        in_flight=total(lambda one: one.in_flight),
        completion_tokens=total(lambda one: one.completion_tokens),
        ttft_p50_ms=(None,) * count,
        ttft_p99_ms=(None,) * count,
    )


def how_many_together(bins: int, requests: int, *, most: int = MOST_BINS) -> int:
    """How many bins make a point: 1, 2, 5, 10, … so that a point has some requests, and there are FEW to `most`."""
    points = min(most, max(FEW, requests // REQUESTS_IN_A_POINT))
    steps: Iterable[int] = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
    return next(step for step in steps if bins <= step * points)


def coarse(series: Series, bin_s: float, together: int) -> Drawn:
    """Rates per second; of failures the sum, of requests in flight and of p99 the most, of p50 the middle one."""
    width_s = bin_s * together

    def rate(values: Sequence[int]) -> tuple[Value, ...]:
        return tuple(total / width_s for total in merged(values, together, sum))

    return Drawn(
        tenant=series.tenant,
        bin_s=width_s,
        scheduled_per_s=rate(series.scheduled),
        succeeded_per_s=rate(series.succeeded),
        failed=tuple(merged(series.failed, together, sum)),
        in_flight=tuple(merged(series.in_flight, together, max)),
        tokens_per_s=rate(series.completion_tokens),
        ttft_p50_ms=tuple(merged(series.ttft_p50_ms, together, middle)),
        ttft_p99_ms=tuple(merged(series.ttft_p99_ms, together, highest)),
    )


def merged(values: Sequence[T], together: int, join: Callable[[Sequence[T]], R]) -> list[R]:
    """`join` of each `together` neighbours; the last may have fewer."""
    return [join(values[i : i + together]) for i in range(0, len(values), together)]


def highest(values: Sequence[Value]) -> Value:
    return max((value for value in values if value is not None), default=None)


def middle(values: Sequence[Value]) -> Value:
    """The upper median of what there is."""
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None
