"""How sure are the ratios of two servers that were measured in rounds? Pure.

A round's A and B stay together, as the logarithm of their ratio: what disturbed both cancels, and what doubles one in
ten rounds weighs as what halves it. The interval is Student's t of those logarithms around their mean.

Many figures are looked at together, and of twenty at 95 % each, one of equal servers looks different. So each of n
has an interval of 1 - 5 % / n (Bonferroni; Miller: Simultaneous Statistical Inference, 1981): in 95 % of comparisons
*all* of them hold their true ratios.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from cotenant_loadtests.bootstrap import student_t
from cotenant_loadtests.extras import Interval

LEVEL = 0.95
"""Of all figures together."""
FEWEST_ROUNDS = 6
"""With eleven figures an interval is 2.0 times the rounds' standard deviation to both sides; with three it were 8."""


def ratio(before: Sequence[float], after: Sequence[float]) -> float | None:
    """The rounds' after / before, their geometric mean; None without rounds, or where `before` has a 0.

    Where `after` has a 0 it is the plain mean, as everywhere here: a 0 has no logarithm.
    """
    if not before or min(before) <= 0:
        return None
    logarithmic, values = _values(before, after)
    return math.exp(fmean(values)) if logarithmic else fmean(values)


def ratio_interval(before: Sequence[float], after: Sequence[float], figures: int) -> Interval | None:
    """Of `ratio`, as one of so many figures. None where the rounds are too few for it, or `before` has a 0."""
    number = len(before)
    if number < FEWEST_ROUNDS or min(before) <= 0:
        return None
    logarithmic, values = _values(before, after)
    middle = fmean(values)
    reach = student_t(1 - (1 - LEVEL) / 2 / figures, number - 1) * stdev(values) / math.sqrt(number)
    if logarithmic:
        return Interval(low=math.exp(middle - reach), high=math.exp(middle + reach))
    return Interval(low=max(0.0, middle - reach), high=middle + reach)


def _values(before: Sequence[float], after: Sequence[float]) -> tuple[bool, list[float]]:
    """(are they logarithms?, the ratios)"""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} rounds before and {len(after)} after: they belong in pairs")
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    return (True, [math.log(one) for one in ratios]) if min(ratios) > 0 else (False, ratios)
