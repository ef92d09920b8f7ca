"""A small picture for each tenant, all on the same axes, to see at a glance who is unlike the others."""

from collections.abc import Sequence

from cotenant_loadtests.report.cast import Cast, by_traffic, legend, who_is_drawn
from cotenant_loadtests.report.coarse import Drawn, drawn, how_many_together
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.plot import Axes, band, level, line, plot
from cotenant_loadtests.report.scales import Scale, Tick, clock, fitting
from cotenant_loadtests.report.tables import folded, table
from cotenant_loadtests.report.timelines import (
    failed_note,
    failure_legend,
    failures,
    log_note,
    mostly_failed,
    outside,
    slo_limit,
    time_axis,
)
from cotenant_loadtests.report.wording import milliseconds, number, percent, plural
from cotenant_loadtests.results import ALL, Group, Results

MOST_POINTS = 80


def multiples(results: Results, cast: Cast) -> Markup | None:
    """None for a single tenant, whom the other pictures show already."""
    found = {series.tenant: series for series in results.timeline.series}
    shown = [name for name in cast.panels if name in found]
    if cast.tenants < 2 or not shown:
        return None
    each = sum(sum(found[name].scheduled) for name in shown) // len(shown)
    series = drawn(results.timeline, how_many_together(len(found[shown[0]].scheduled), each, most=MOST_POINTS))
    limits = [limit for name in shown if (limit := slo_limit(results, "ttft_p99_ms", name)) is not None]
    y = fitting([value for name in shown for value in series[name].ttft_p99_ms], also=limits)
    axes = Axes(_three_ticks(time_axis(results)), y)
    groups = {group.tenant: group for group in by_traffic(results.tenants)}
    panels = [_panel(i, groups[name], series[name], axes, results) for i, name in enumerate(shown)]
    return section(
        "tenants",
        "Tenant by tenant",
        legend([("s1", None, Markup("TTFT p50")), ("p99", None, Markup("TTFT p99")), failure_legend()]),
        element(
            "div",
            element("div", panels, class_="panels"),
            folded("Numbers", _table([series[name] for name in shown])),
            class_="picture",
        ),
        lead=joined(
            "Time to first token over time, in milliseconds, the busiest tenant first; all on the same axes. ",
            f"Each point covers {number(series[shown[0]].bin_s)} s.",
            log_note(axes.y),
            failed_note(*(series[name] for name in shown)),
            " ",
            who_is_drawn(len(shown), cast.tenants, cast.share_in_panels),
        ),
    )


def _panel(i: int, group: Group, series: Drawn, axes: Axes, results: Results) -> Markup:
    p50, p99 = (series.points(series.telling(values)) for values in (series.ttft_p50_ms, series.ttft_p99_ms))
    layers = [
        *outside(results, axes),
        *mostly_failed(axes, series),
        band(axes, p50, p99, "s1"),
        line(axes, p99, "p99"),
        line(axes, p50, "s1"),
        failures(axes, series, most=26),
    ]
    if (limit := slo_limit(results, "ttft_p99_ms", group.tenant)) is not None:
        layers.append(level(axes, limit, f"limit {milliseconds(limit)}"))
    words = f"Median {milliseconds(group.ttft_ms.p50)}, p99 {milliseconds(group.ttft_ms.p99)}."
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", named(group.tenant)),
            element(
                "p", f"{plural(group.scheduled, 'request')}, {percent(group.success_rate)} succeeded", class_="note"
            ),
        ),
        plot(f"m-{i}", f"Time to first token of {group.tenant} over time", words, axes, layers, height=110),
        class_="panel",
    )


def _three_ticks(scale: Scale) -> Scale:
    """Small pictures have room for few labels."""
    ticks = scale.ticks[:: max(1, -(-len(scale.ticks) // 3))]
    return Scale(scale.place, tuple(Tick(tick.at, tick.label) for tick in ticks), scale.low, scale.high)


def _table(series: Sequence[Drawn]) -> Markup:
    head = ["from", *(f"{one.tenant} {p}" for one in series if one.tenant != ALL for p in ("p50", "p99"))]
    columns = [values for one in series for values in (one.ttft_p50_ms, one.ttft_p99_ms)]
    rows = (
        (clock(start), *(number(value) for value in row))
        for start, *row in zip(series[0].starts_s, *columns, strict=True)
    )
    return table("TTFT of each tenant over time, ms", head, rows)
