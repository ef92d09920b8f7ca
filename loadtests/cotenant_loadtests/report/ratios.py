"""`compare`: the ratio of B to A of each figure, with its interval, and whether it shows a difference at all."""

import math
from collections.abc import Sequence

from cotenant_loadtests.extras import Compared, Comparison, Condition
from cotenant_loadtests.report.markup import Child, Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import percent_of
from cotenant_loadtests.report.rows import axis, row, rows
from cotenant_loadtests.report.scales import Scale, Tick
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.verdict import icon
from cotenant_loadtests.report.wording import number, plural, ratio, slo_value

SMALLEST_SPAN = math.log(1.1)
"""The axis goes at least from ÷1.1 to ×1.1."""


def ratios(found: Comparison) -> Markup:
    scale = _scale(found.metrics)
    figures = [_row(i, one, scale) for i, one in enumerate(found.metrics)]
    return section(
        "x-compare",
        "Comparison",
        _conditions(found.conditions),
        picture(
            "Ratio B / A",
            "Mean of the rounds and its interval, of 95 % confidence for all figures together. "
            "An interval that holds 1 shows no difference.",
            rows(figures, axis(scale), kind="ratios"),
            table=_table(found),
        ),
        lead=joined(
            element("strong", "A"),
            " ",
            named(found.a),
            element("br"),
            element("strong", "B"),
            " ",
            named(found.b),
            element("br"),
            plural(found.rounds, "round"),
            ", in turn. ",
            _summary(found.metrics),
        ),
    )


def difference(one: Compared) -> str:
    """`B is 12 % lower: better`, `no difference shown`, …"""
    if one.difference in ("higher", "lower") and one.ratio is not None:
        better = (one.difference == "lower") == one.lower_is_better
        by = f"{number(abs(one.ratio - 1) * 100)} % " if one.ratio < 2 else f"{number(one.ratio)} times as much, "
        return f"B is {by}{one.difference}: {'better' if better else 'worse'}"
    words = {"too_few_rounds": "too few rounds to say", "not_measured": "not measured"}
    return words.get(one.difference, "no difference shown")


def _summary(metrics: Sequence[Compared]) -> str:
    shown = sum(one.difference in ("higher", "lower") for one in metrics)
    if not shown:
        return "No difference is shown in any figure."
    return f"{shown} of {plural(len(metrics), 'figure')} show a difference."


def _scale(metrics: Sequence[Compared]) -> Scale:
    """Logarithmic around 1, as far to both sides as the farthest interval goes."""
    ends = [end for one in metrics if one.interval for end in (one.interval.low, one.interval.high)]
    ends += [one.ratio for one in metrics if one.ratio]
    span = max([SMALLEST_SPAN, *(abs(math.log(end)) for end in ends if end > 0 and math.isfinite(end))]) * 1.04
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)

    def place(value: float) -> float:
        return min(1.0, max(0.0, 0.5 + math.log(value) / span / 2)) if value > 0 else 0.0

    labels = tuple(Tick(at, ratio(math.exp((at - 0.5) * 2 * span))) for at in ticks)
    return Scale(place, labels, math.exp(-span), math.exp(span), logarithmic=True)


def _row(i: int, one: Compared, scale: Scale) -> Markup:
    interval = f", {ratio(one.interval.low)} to {ratio(one.interval.high)}" if one.interval else ""
    return row(
        f"x-ratio-{i}",
        one.metric,
        _interval(one, scale),
        joined(ratio(one.ratio), " ", element("small", difference(one))),
        title=f"{one.metric}, B / A",
        told=f"{ratio(one.ratio)}{interval}: {difference(one)}",
    )


def _interval(one: Compared, scale: Scale) -> Markup:
    kind, whisker, dot = _kind(one), None, None
    if one.interval is not None:
        low, high = (percent_of(scale.place(end)) for end in (one.interval.low, one.interval.high))
        whisker = element("line", x1=low, x2=high, y1=11, y2=11, class_=f"whisker {kind}")
    if one.ratio:
        dot = element("use", href="#m-diamond", x=percent_of(scale.place(one.ratio)), y=11, class_=f"mark {kind}")
    return joined(
        element("line", x1="0", x2="100%", y1=11, y2=11, class_="grid"),
        element("line", x1="50%", x2="50%", y1="0", y2="100%", class_="one"),
        whisker,
        dot,
    )


def _kind(one: Compared) -> str:
    if one.difference not in ("higher", "lower"):
        return "unsure"
    return "better" if (one.difference == "lower") == one.lower_is_better else "worse"


def _conditions(conditions: Sequence[Condition]) -> Child:
    if not conditions:
        return None
    words = {True: " fails", False: " does not fail"}
    lines = (
        element("li", icon("cross" if one.failed else "check"), element("code", one.text), words[one.failed])
        for one in conditions
    )
    return element("ul", lines)


def _table(found: Comparison) -> Markup:
    rows = [
        (
            one.metric,
            slo_value(one.metric, one.a),
            slo_value(one.metric, one.b),
            ratio(one.ratio),
            f"{ratio(one.interval.low)} to {ratio(one.interval.high)}" if one.interval else "–",
            difference(one),
            ", ".join(number(value) for value in one.rounds_a),
            ", ".join(number(value) for value in one.rounds_b),
        )
        for one in found.metrics
    ]
    head = ("figure", "A", "B", "B / A", "interval", "", "rounds of A", "rounds of B")
    return table("Each figure: medians of the rounds, and the mean of their ratios", head, rows, words=(5,))
