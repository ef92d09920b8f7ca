"""A percentile p is the nearest rank: the least value that at least p % of the values do not exceed. Pure, light."""

from collections.abc import Sequence

UNIT = 1_000_000
"""Percentiles are taken to a millionth, so that 99.9 % of 1,000 values are 999 of them."""


def nearest_rank(percentile: float, count: int) -> int:
    """From 1 to `count`."""
    return min(max(-(-round(percentile * UNIT) * count // (100 * UNIT)), 1), count)


def at_percentile(values: Sequence[float], percentile: float) -> float:
    """The value of that rank; 0 without any."""
    return float(sorted(values)[nearest_rank(percentile, len(values)) - 1]) if values else 0.0
