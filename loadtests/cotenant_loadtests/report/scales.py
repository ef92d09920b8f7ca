"""From a value to its place on an axis (0 to 1), with ticks at round values; pure."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cotenant_loadtests.report.wording import compact

TIME_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(frozen=True)
class Tick:
    at: float
    """Place, 0 to 1."""
    label: str


@dataclass(frozen=True)
class Scale:
    place: Callable[[float], float]
    """Value → 0 to 1, held to the axis."""
    ticks: tuple[Tick, ...]
    low: float
    high: float
    logarithmic: bool = False


def linear(high: float, *, low: float = 0.0, ticks: int = 4, label: Callable[[float], str] = compact) -> Scale:
    """From `low` to at least `high`, ending at a tick."""
    span = high - low if math.isfinite(high - low) and high > low else 1.0
    step = round_step(span / ticks)
    count = max(1, math.ceil(span / step - 1e-9))
    top = low + step * count
    marks = tuple(Tick(i / count, label(low + i * step)) for i in range(count + 1))
    return Scale(lambda value: _held((value - low) / (top - low)), marks, low, top)


def round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5 × 10ⁿ that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))


def logarithmic(low: float, high: float) -> Scale:
    """Powers of ten around `low` to `high`; with few of them also 2 and 5. Values at or below 0 stand at the foot."""
    low = max(low, high / 1e6, 1e-6)
    first = math.floor(math.log10(low) + 1e-9)
    last = max(first + 1, math.ceil(math.log10(max(high, low)) - 1e-9))
    factors = (1, 2, 5) if last - first <= 1 else (1, 3) if last - first == 2 else (1,)
    powers = range(first, last, 1 if last - first <= 5 else 2)
    values = [factor * 10.0**power for power in powers for factor in factors] + [10.0**last]

    def place(value: float) -> float:
        return _held((math.log10(value) - first) / (last - first)) if value > 0 else 0.0

    return Scale(place, tuple(Tick(place(v), compact(v)) for v in values), 10.0**first, 10.0**last, logarithmic=True)


def fitting(values: Iterable[float | None], *, also: Iterable[float] = ()) -> Scale:
    """For latencies: linear from 0, or logarithmic where the largest would flatten all others."""
    known = sorted(v for v in values if v is not None and math.isfinite(v))
    positive = [v for v in known if v > 0]
    high = max([*known[-1:], *also], default=1.0)
    if len(positive) >= 2 and high > 20 * positive[len(positive) // 2]:
        return logarithmic(positive[0], high)
    return linear(high)


def spreading(values: Iterable[float | None], *, ticks: int = 5) -> Scale:
    """For rates: logarithmic where the largest is more than eight times the smallest above 0, else linear from 0."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    positive = [value for value in known if value > 0]
    if positive and max(positive) > 8 * min(positive):
        return logarithmic(min(positive), max(positive))
    return linear(max(known, default=1.0), ticks=ticks)


def time(seconds: float) -> Scale:
    """From the start of the run, with at most seven ticks."""
    seconds = seconds if math.isfinite(seconds) and seconds > 0 else 1.0
    step = next((step for step in TIME_STEPS_S if seconds / step <= 6), seconds / 6)
    marks = tuple(Tick(i * step / seconds, clock(i * step)) for i in range(math.floor(seconds / step + 1e-9) + 1))
    return Scale(lambda value: _held(value / seconds), marks, 0.0, seconds)


def percentile(count: int) -> Scale:
    """Each nine is as wide as the one before: 0, 50, 90, 99, 99.9, … as far as `count` values reach."""
    nines = min(6.0, max(2.0, math.log10(max(count, 1)) + 0.1))
    shown = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)[: math.floor(nines) + 2]

    def place(value: float) -> float:
        return 1.0 if value >= 100 else _held(-math.log10(1 - max(value, 0.0) / 100) / nines)

    return Scale(place, tuple(Tick(place(p), f"{p:g}") for p in shown), 0.0, shown[-1], logarithmic=True)


def clock(seconds: float) -> str:
    """`5 s`, `1:30` (minutes), `2:05:00` (hours)."""
    if seconds < 60:
        return f"{seconds:g} s"
    total = round(seconds)
    hours, rest = divmod(total, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _held(place: float) -> float:
    return min(1.0, max(0.0, place)) if math.isfinite(place) else 1.0
