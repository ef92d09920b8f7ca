"""How sure is a ratio of two servers, or a slope over hours? Bootstrap: draw the rounds again, with replacement, many
times, and look how the figure varies (Efron, Tibshirani: An Introduction to the Bootstrap, 1993). Pure.

A round's A and B stay together, as a ratio: what disturbed both cancels.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import TYPE_CHECKING

from cotenant_loadtests.extras import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
FEWEST_ROUNDS = 6
"""An interval that reaches from the least to the most of n values holds the median in all but 1 of 2^(n-1) cases.
That is 93.75 % with 5, so no interval of 95 % can be had from fewer than 6."""
FEWEST_SEGMENTS = 6
DRAWS = 10_000


def ratio(before: Sequence[float], after: Sequence[float]) -> float | None:
    """The median of the rounds' ratios after / before; None without rounds, or where `before` has a 0."""
    return median(_ratios(before, after)) if before and min(before) > 0 else None


def ratio_interval(before: Sequence[float], after: Sequence[float], seed: int = 1) -> Interval | None:
    """Of `ratio`, by percentiles: 92 to 97 % of such intervals hold the true ratio (see the tests).

    None where the rounds are too few for it, or `before` has a 0.
    """
    import numpy as np

    if len(before) < FEWEST_ROUNDS or min(before) <= 0:
        return None
    ratios = np.asarray(_ratios(before, after))
    return _between(np.median(ratios[_draws(len(ratios), seed)], axis=1), (1 - LEVEL) / 2)


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    """Least squares: (slope, value at x = 0); None where all x are equal."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    spread = math.fsum((value - mean_x) ** 2 for value in x)
    if spread == 0:
        return None
    per_x = math.fsum((here - mean_x) * (there - mean_y) for here, there in zip(x, y, strict=True)) / spread
    return per_x, mean_y - per_x * mean_x


def slope_interval(x: Sequence[float], y: Sequence[float], seed: int = 1) -> Interval | None:
    """Of `slope`, over segments; None where they are too few.

    Percentiles are taken further out by as much as Student's t is wider than the normal (Hesterberg, The American
    Statistician 69, 2015, section 4.3), else intervals of few segments are too narrow. These hold the true slope in
    98 % of cases with 6 segments and in 95 % with many.
    """
    import numpy as np

    number = len(x)
    if number < FEWEST_SEGMENTS:
        return None
    drawn = _draws(number, seed)
    xs, ys = np.asarray(x, dtype=float)[drawn], np.asarray(y, dtype=float)[drawn]
    xs -= xs.mean(axis=1, keepdims=True)
    spread = (xs**2).sum(axis=1)
    some = spread > 0  # not the draws that took one segment each time
    if not some.any():
        return None
    slopes = (xs * ys).sum(axis=1)[some] / spread[some]
    further = math.sqrt(number / (number - 2)) * student_t(1 - (1 - LEVEL) / 2, number - 2)
    return _between(slopes, NormalDist().cdf(-further))


def student_t(probability: float, freedom: int) -> float:
    """Quantile of Student's t, within 1 % from 4 degrees of freedom on (Abramowitz, Stegun: 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _ratios(before: Sequence[float], after: Sequence[float]) -> list[float]:
    if len(before) != len(after):
        raise ValueError(f"{len(before)} rounds before and {len(after)} after: they belong in pairs")
    return [b / a for a, b in zip(before, after, strict=True)]


def _draws(number: int, seed: int) -> "NDArray[np.int64]":
    """(DRAWS, number) places of rounds, each row one draw with replacement."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, number, (DRAWS, number))


def _between(values: "NDArray[np.float64]", outside: float) -> Interval:
    import numpy as np

    low, high = np.quantile(values, [outside, 1 - outside])
    return Interval(low=float(low), high=float(high))
