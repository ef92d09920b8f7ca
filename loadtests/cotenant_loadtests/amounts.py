"""How many tokens, turns or seconds: draws from the distributions of a scenario. Standard library only; pure."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, exp, floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cotenant_loadtests.seeded import Source
    from cotenant_loadtests.spec_values import Exponential, Fixed, Lognormal, Uniform

    Drawn = Fixed | Lognormal | Exponential | Uniform


_MOST_EXPONENT = 700.0
"""`exp` of more raises; every `max` is far below."""


def drawer(amount: Drawn, source: Source) -> Callable[[], float]:
    """Draws a number."""
    if amount.distribution == "fixed":
        value = amount.value
        return lambda: value
    low, high = amount.min, amount.max
    if amount.distribution == "uniform":
        return lambda: source.uniform(low, high)
    if amount.distribution == "exponential":
        mean = amount.mean
        return lambda: min(max(source.exponential(mean), low), high)
    median, sigma = amount.median, amount.sigma
    return lambda: min(max(median * exp(min(sigma * source.normal(), _MOST_EXPONENT)), low), high)


def whole_drawer(amount: Drawn, source: Source, lowest: int = 1) -> Callable[[], int]:
    """Draws a whole number, at least `lowest`."""
    if amount.distribution == "uniform":
        low, high = ceil(amount.min), floor(amount.max)
        return lambda: max(source.integer(low, high), lowest)
    draw = drawer(amount, source)
    return lambda: max(round(draw()), lowest)
