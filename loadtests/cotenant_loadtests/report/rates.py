"""Goodput against rate, step by step: where more requests stop being more good answers."""

from collections.abc import Sequence
from itertools import groupby

from cotenant_loadtests.report.cast import legend
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, Layer, line, mark, plot, upright
from cotenant_loadtests.report.scales import fitting, linear
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.timelines import log_note
from cotenant_loadtests.report.wording import clock_range, number, per_second, percent
from cotenant_loadtests.results import Results, Step

GOOD_ENOUGH = 0.9


def rates(results: Results) -> Markup | None:
    """None where no stream goes in steps."""
    if not results.steps:
        return None
    streams = [
        (name, list(steps)) for name, steps in groupby(sorted(results.steps, key=_order), lambda step: step.stream)
    ]
    return section(
        "rates",
        "Goodput against rate",
        (_stream(i, name, steps) for i, (name, steps) in enumerate(streams)),
        lead=f"The knee is the highest rate up to which, at every step, at least {GOOD_ENOUGH * 100:.0f} % "
        "of the requests were answered within the goodput limits.",
    )


def knee(steps: Sequence[Step]) -> Step | None:
    """The last step, by rate, before the first that was not good enough; None where the first is not."""
    last = None
    for step in sorted(steps, key=lambda step: step.rate_per_s):
        if step.good_per_s < GOOD_ENOUGH * step.rate_per_s:
            break
        last = step
    return last


def _order(step: Step) -> tuple[str, float]:
    return step.stream, step.rate_per_s


def _stream(i: int, name: str, steps: Sequence[Step]) -> Markup:
    last_good = knee(steps)
    highest = max(step.rate_per_s for step in steps)
    x = linear(highest, ticks=5)
    return element(
        "div",
        element("h3", "Stream ", named(name), ": ", _knee_words(last_good, steps), class_="wide"),
        _goodput(f"g-{i}", steps, last_good, Axes(x, linear(highest))),
        _latency(f"gt-{i}", steps, last_good, Axes(x, fitting(step.ttft_p99_ms for step in steps))),
        class_="pairs",
    )


def _knee_words(last_good: Step | None, steps: Sequence[Step]) -> str:
    if last_good is None:
        return f"beyond its knee already at {per_second(min(step.rate_per_s for step in steps))}"
    if last_good.rate_per_s == max(step.rate_per_s for step in steps):
        return f"no knee up to {per_second(last_good.rate_per_s)}"
    return f"knee at {per_second(last_good.rate_per_s)}"


def _goodput(slug: str, steps: Sequence[Step], last_good: Step | None, axes: Axes) -> Markup:
    ideal = line(axes, [(0.0, 0.0), (axes.x.high, axes.x.high)], "plan")
    points = [(step.rate_per_s, step.good_per_s) for step in steps]
    drawing = plot(
        slug,
        "Good answers per second against requests per second",
        "; ".join(f"{number(rate)} /s offered, {number(good)} /s good" for rate, good in points),
        axes,
        (ideal, *_stepped(axes, points), *_knee_line(axes, last_good)),
        height=210,
    )
    rows = [
        (
            per_second(step.rate_per_s),
            clock_range(step.from_s, step.to_s),
            number(step.good_per_s),
            percent(step.success_rate),
            number(step.ttft_p99_ms),
        )
        for step in steps
    ]
    return picture(
        "Goodput",
        "Good answers per second.",
        drawing,
        element("p", "requests per second", class_="axis"),
        legend=legend([("s1", "dot", Markup("good")), ("plan", None, Markup("all good"))]),
        table=table("Each step", ("rate", "when", "good /s", "succeeded", "TTFT p99 ms"), rows),
    )


def _latency(slug: str, steps: Sequence[Step], last_good: Step | None, axes: Axes) -> Markup:
    points = [(step.rate_per_s, step.ttft_p99_ms) for step in steps]
    drawing = plot(
        slug,
        "TTFT p99 against requests per second",
        "; ".join(f"{number(rate)} /s: {number(value)} ms" for rate, value in points),
        axes,
        (*_stepped(axes, points), *_knee_line(axes, last_good)),
        height=210,
    )
    return picture(
        "Time to first token, p99",
        joined("Milliseconds.", log_note(axes.y)),
        drawing,
        element("p", "requests per second", class_="axis"),
        legend=legend([("s1", "dot", Markup("TTFT p99"))]),
    )


def _stepped(axes: Axes, points: Sequence[tuple[float, float | None]]) -> tuple[Layer, ...]:
    """A line with a marker at each step."""
    dots = joined(mark(axes, x, y, "dot", "s1") for x, y in points if y is not None)
    return line(axes, points, "s1"), Layer(fixed=dots)


def _knee_line(axes: Axes, last_good: Step | None) -> tuple[Layer, ...]:
    return (
        () if last_good is None else (upright(axes, last_good.rate_per_s, f"knee {number(last_good.rate_per_s)} /s"),)
    )
