"""Percentile curves: what share of requests was answered within how long, with as much room for the last 0.1 %."""

from collections.abc import Callable, Sequence

from cotenant_loadtests.report.cast import EVERYONE, Actor, Cast, by_traffic, legend, who_is_drawn
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, Points, line, plot
from cotenant_loadtests.report.scales import fitting, percentile
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.wording import milliseconds, number, whole
from cotenant_loadtests.results import Group, Quantiles, Results

MEASURES: tuple[tuple[str, str, str, Callable[[Group], Quantiles]], ...] = (
    (
        "ttft",
        "Time to first token (TTFT)",
        "From scheduled to the first token with text.",
        lambda group: group.ttft_ms,
    ),
    ("itl", "Between tokens (ITL)", "Gaps between events with text, of all streams.", lambda group: group.itl_ms),
    (
        "tpot",
        "Per token (TPOT)",
        "From the first token to the end, by the tokens after the first.",
        lambda group: group.tpot_ms,
    ),
    ("e2e", "Whole answer (E2E)", "From scheduled to the end of the answer.", lambda group: group.e2e_ms),
)
HEAD = ("tenant", "values", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")


def percentiles(results: Results, cast: Cast) -> Markup:
    pictures = [_curves(*measure, results, cast) for measure in MEASURES]
    return section(
        "percentiles",
        "Latency percentiles",
        element("div", pictures, class_="pairs"),
        lead="Milliseconds against percentile. Each nine has as much room as the one before: further right is rarer.",
    )


def curve(values: Quantiles) -> list[tuple[float, float | None]]:
    """As drawn: what lies beyond the last of `count` values is the largest of them."""
    if values.count <= 1:
        return [(0.0, values.max), (50.0, values.max)] if values.count else []
    last = 100 * (1 - 1 / values.count)
    inside: list[tuple[float, float | None]] = [(p, value) for p, value in values.curve if p < last]
    return [*inside, (last, values.max)]


def quantile_cells(values: Quantiles) -> tuple[str, ...]:
    if not values.count:
        return ("0", *("–" for _ in HEAD[2:]))
    figures = (values.mean, values.p50, values.p90, values.p95, values.p99, values.p999, values.max)
    return (whole(values.count), *(number(value) for value in figures))


def summary(values: Quantiles) -> str:
    """What a screen reader says of a curve."""
    return f"median {milliseconds(values.p50)}, p99 {milliseconds(values.p99)}, highest {milliseconds(values.max)}."


def _curves(
    slug: str, title: str, note: str, quantiles: Callable[[Group], Quantiles], results: Results, cast: Cast
) -> Markup:
    groups = {group.tenant: group for group in results.tenants}
    actors = [actor for actor in cast.actors if quantiles(groups[actor.tenant]).count]
    total = quantiles(results.total)
    lines: list[tuple[Actor, Points]] = [(EVERYONE, curve(total))] if total.count else []
    if cast.tenants > 1:
        lines += [(actor, curve(quantiles(groups[actor.tenant]))) for actor in actors]
    everyone = [(named(group.tenant), *quantile_cells(quantiles(group))) for group in by_traffic(results.tenants)]
    return picture(
        title,
        joined(note, " ", who_is_drawn(len(cast.actors), cast.tenants, cast.share_drawn)),
        _drawing(slug, title, total, lines),
        legend=legend([(actor.kind, actor.marker, actor.label) for actor, _ in lines]) if lines else None,
        table=table(f"{title}, ms", HEAD, [("all tenants", *quantile_cells(total)), *everyone]),
    )


def _drawing(slug: str, title: str, total: Quantiles, lines: Sequence[tuple[Actor, Points]]) -> Markup:
    if not lines:
        return element("p", "No request measured it.", class_="quiet nothing")
    axes = Axes(percentile(total.count), fitting(value for _, points in lines for _, value in points))
    layers = [line(axes, points, actor.kind, marker=actor.marker) for actor, points in reversed(lines)]
    words = f"All tenants: {summary(total)}"
    return joined(
        plot(f"p-{slug}", f"Percentile curves of {title}", words, axes, layers, height=210),
        element(
            "p", "percentile", "; the vertical axis is logarithmic" if axes.y.logarithmic else None, class_="axis"
        ),
    )
