"""How sure is a slope over hours? Bootstrap: draw the segments again, with replacement, many times, and look how the
slope varies (Efron, Tibshirani: An Introduction to the Bootstrap, 1993). Pure.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from cotenant_loadtests.extras import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
FEWEST_SEGMENTS = 6
DRAWS = 10_000


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
    """Quantile of Student's t (Abramowitz, Stegun: 26.7.5).

    From 5 degrees of freedom on, what lies above it is at most 5 % too much, up to a probability of 0.998.
    """
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _draws(number: int, seed: int) -> "NDArray[np.int64]":
    """(DRAWS, number) places of segments, each row one draw with replacement."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, number, (DRAWS, number))


def _between(values: "NDArray[np.float64]", outside: float) -> Interval:
    import numpy as np

    low, high = np.quantile(values, [outside, 1 - outside])
    return Interval(low=float(low), high=float(high))
