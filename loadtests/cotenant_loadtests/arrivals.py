"""When requests come: arrival processes of a scenario. Standard library only; pure.

Times are seconds from the start of the run. All but `constant` and `gamma` are Poisson processes whose rate is
constant over pieces of time or changes evenly; a Poisson process has no memory, so each piece begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cotenant_loadtests.seeded import Source
    from cotenant_loadtests.spec_values import Constant, Gamma, OnOff, Poisson, Ramp, Steps

    Process = Constant | Poisson | Gamma | OnOff | Ramp | Steps

Piece = tuple[float, float, float]
"""From, to (seconds), rate (per second)."""


def arrival_times(process: Process, source: Source, from_s: float, to_s: float) -> Iterator[float]:
    """Times in [from_s, to_s), in order."""
    if process.process == "constant":
        return _constant(process.rate_per_s, from_s, to_s)
    if process.process == "gamma":
        return _gamma(process, source, from_s, to_s)
    if process.process == "ramp":
        return _ramp(process, source, from_s, to_s)
    return _poisson(pieces(process, from_s, to_s), source)


def pieces(process: Poisson | OnOff | Steps, from_s: float, to_s: float) -> Iterator[Piece]:
    """The pieces of time in which the rate is constant."""
    if process.process == "poisson":
        yield from_s, to_s, process.rate_per_s
        return
    lengths = _on_off(process) if process.process == "on_off" else _steps(process)
    start = from_s
    for length_s, rate_per_s in lengths:
        if start >= to_s:
            return
        yield start, min(start + length_s, to_s), rate_per_s
        start += length_s


def _on_off(process: OnOff) -> Iterator[tuple[float, float]]:
    return cycle(((process.on_s, process.rate_per_s), (process.off_s, process.off_rate_per_s)))


def _steps(process: Steps) -> Iterator[tuple[float, float]]:
    return ((process.step_s, rate_per_s) for rate_per_s in process.rates_per_s)


def _constant(rate_per_s: float, from_s: float, to_s: float) -> Iterator[float]:
    count = 0
    while (at_s := from_s + count / rate_per_s) < to_s:
        yield at_s
        count += 1


def _poisson(parts: Iterator[Piece] | Sequence[Piece], source: Source) -> Iterator[float]:
    for start, end, rate_per_s in parts:
        if rate_per_s <= 0:
            continue
        at_s = start
        while (at_s := at_s + source.exponential(1 / rate_per_s)) < end:
            yield at_s


def _gamma(process: Gamma, source: Source, from_s: float, to_s: float) -> Iterator[float]:
    """A stationary renewal process, so that its mean rate holds from the first second on.

    The first gap is what is left of one that began before: a uniform part of a gap that is drawn in proportion to its
    length, Gamma(shape + 1). A whole gap would begin with an arrival that nobody sees, and send (CV² - 1)/2 too many.
    """
    scale_s = 1 / process.rate_per_s / process.burstiness
    at_s = from_s + scale_s * source.unit() * source.gamma(process.burstiness + 1)
    while at_s < to_s:
        yield at_s
        at_s += scale_s * source.gamma(process.burstiness)


def _ramp(process: Ramp, source: Source, from_s: float, to_s: float) -> Iterator[float]:
    """By inversion: arrivals are unit exponentials apart in the integral of the rate, a·t + slope·t²/2."""
    first = process.from_per_s
    slope = (process.to_per_s - first) / (to_s - from_s)
    passed = 0.0
    while True:
        passed += source.exponential()
        square = first * first + 2 * slope * passed
        if square < 0 or (square == 0 and slope < 0):  # the rate has come to zero
            return
        below = first + sqrt(square)
        at_s = from_s + (2 * passed / below if below else 0.0)
        if at_s >= to_s:
            return
        yield at_s
