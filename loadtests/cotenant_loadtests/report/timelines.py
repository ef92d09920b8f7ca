"""What happened when: panels under one another with the same time axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_loadtests.report.cast import EVERYONE, OTHERS, Actor, Cast, legend, who_is_drawn
from cotenant_loadtests.report.coarse import Drawn, Value, coarse, drawn, how_many_together, others_than
from cotenant_loadtests.report.markup import Markup, element, joined
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, Layer, band, bars, level, line, marks, plot, shade
from cotenant_loadtests.report.scales import Scale, clock, fitting, linear, time
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.wording import milliseconds, number, plural, slo_value
from cotenant_loadtests.results import ALL, Results

Column = Callable[[Drawn], Sequence[Value]]
Lines = Sequence[tuple[Actor, Drawn]]


@dataclass(frozen=True)
class Panel:
    """What is drawn of each tenant."""

    slug: str
    title: str
    unit: str
    note: str
    values: Column


IN_FLIGHT = Panel(
    slug="t-flight",
    title="Requests in flight",
    unit="requests",
    note="Sent and not ended, at the end of each bin; of the bins in a point, the most.",
    values=lambda one: one.in_flight,
)
TOKENS = Panel(
    slug="t-tokens",
    title="Tokens",
    unit="tokens/s",
    note="Tokens per second, by when they came.",
    values=lambda one: one.tokens_per_s,
)


def timelines(results: Results, cast: Cast) -> Markup:
    lines = _lines(results, cast)
    if not lines or not lines[0][1].failed:
        return section("time", "Over time", element("p", "Nothing was sent.", class_="quiet"))
    axis, everyone = time_axis(results), lines[0][1]
    return section(
        "time",
        "Over time",
        _requests(results, axis, everyone),
        _per_tenant(IN_FLIGHT, results, axis, lines, cast),
        _per_tenant(TOKENS, results, axis, lines, cast),
        _first_tokens(results, axis, everyone),
        lead=joined(_points(results, everyone), _shading(results)),
    )


def _lines(results: Results, cast: Cast) -> Lines:
    """All tenants first, then the busiest, then the others; empty where there is no series of all."""
    timeline, together = results.timeline, _together(results)
    series = drawn(timeline, together)
    if ALL not in series:
        return ()
    lines = [(EVERYONE, series[ALL])]
    if cast.tenants > 1:
        lines += [(actor, series[actor.tenant]) for actor in cast.actors if actor.tenant in series]
        rest = others_than(timeline, [actor.tenant for actor in cast.actors])
        lines += [(OTHERS, coarse(rest, timeline.bin_s, together))] if rest is not None else []
    return lines


def _together(results: Results) -> int:
    everyone = next((one for one in results.timeline.series if one.tenant == ALL), None)
    return how_many_together(len(everyone.scheduled), sum(everyone.scheduled)) if everyone else 1


def time_axis(results: Results) -> Scale:
    """The whole run, with what was observed of the server."""
    bins = max((len(series.scheduled) for series in results.timeline.series), default=0)
    samples = [sample.at_s for sample in (*results.server.metrics, *results.server.table)]
    return time(max(bins * results.timeline.bin_s, results.window_to_s, *samples, 0.0))


def outside(results: Results, axes: Axes) -> tuple[Layer, Layer]:
    """Warm-up and cool-down, shaded."""
    return shade(axes, 0.0, results.window_from_s), shade(axes, results.window_to_s, axes.x.high)


def failures(axes: Axes, series: Drawn, *, most: int = 70) -> Layer:
    """A cross at the top of each bin in which a request failed."""
    failed = ((i + 0.5) * series.bin_s for i, count in enumerate(series.failed) if count)
    return marks(axes, failed, "cross", "bad", most=most)


def mostly_failed(axes: Axes, series: Drawn) -> list[Layer]:
    """Points in which more than half of the requests failed, shaded."""
    return [
        shade(axes, i * series.bin_s, (i + 1) * series.bin_s, "mostly-failed")
        for i, bad in enumerate(series.mostly_failed)
        if bad
    ]


def failed_note(*shown: Drawn) -> str:
    if not any(any(series.mostly_failed) for series in shown):
        return ""
    return (
        " Red: more than half of the requests failed; the few quick answers among them say little of what most felt, "
        "so no line is drawn there."
    )


def failure_legend() -> tuple[str, str, Markup]:
    return "none bad", "cross", Markup("a request failed")


def _points(results: Results, everyone: Drawn) -> str:
    merged = everyone.bin_s > results.timeline.bin_s
    how = (
        f"; it joins bins of {number(results.timeline.bin_s)} s, and shows the middle one of their TTFT p50 "
        "and the highest of their TTFT p99"
    )
    return f"Each point covers {number(everyone.bin_s)} s{how if merged else ''}. "


def _shading(results: Results) -> str:
    if results.window_from_s <= 0 and results.window_to_s >= results.duration_s:
        return ""
    return "Shaded: warm-up, cool-down and what came after; not measured."


def _requests(results: Results, axis: Scale, everyone: Drawn) -> Markup:
    failed = [count / everyone.bin_s for count in everyone.failed]
    highest = max(
        (value or 0.0 for value in (*everyone.scheduled_per_s, *everyone.succeeded_per_s, *failed)), default=1.0
    )
    axes = Axes(axis, linear(highest))
    layers = (
        *outside(results, axes),
        bars(axes, list(zip(everyone.starts_s, failed, strict=True)), everyone.bin_s, "bad"),
        line(axes, everyone.points(everyone.scheduled_per_s), "plan"),
        line(axes, everyone.points(everyone.succeeded_per_s), "s0"),
        failures(axes, everyone),
    )
    total = sum(everyone.failed)
    drawing = plot(
        "t-requests",
        "Requests per second over time",
        f"Scheduled, succeeded and failed requests; at most {number(highest)} a second, {plural(total, 'failure')}.",
        axes,
        layers,
    )
    return picture(
        "Requests",
        "Per second, by when they were scheduled.",
        drawing,
        legend=legend(
            [
                ("plan", None, Markup("scheduled")),
                ("s0", None, Markup("succeeded")),
                ("bars bad", "cross", Markup("failed")),
            ]
        ),
        table=_requests_table(everyone),
    )


def _requests_table(everyone: Drawn) -> Markup:
    columns = (
        everyone.scheduled_per_s,
        everyone.succeeded_per_s,
        everyone.failed,
        everyone.in_flight,
        everyone.tokens_per_s,
    )
    rows = [
        (clock(start), *(number(value) for value in values))
        for start, *values in zip(everyone.starts_s, *columns, strict=True)
    ]
    head = ("from", "scheduled /s", "succeeded /s", "failed", "in flight", "tokens /s")
    return table(f"All tenants, for each {number(everyone.bin_s)} s", head, rows)


def _per_tenant(panel: Panel, results: Results, axis: Scale, lines: Lines, cast: Cast) -> Markup:
    most = max((value or 0.0 for value in panel.values(lines[0][1])), default=0.0)
    axes = Axes(axis, linear(most))
    layers = [line(axes, one.points(panel.values(one)), actor.kind, marker=actor.marker) for actor, one in lines]
    words = f"{panel.unit} of all tenants and of the busiest; at most {number(most)}."
    return picture(
        panel.title,
        joined(panel.note, " ", who_is_drawn(len(cast.actors), cast.tenants, cast.share_drawn)),
        plot(panel.slug, f"{panel.title} over time", words, axes, (*outside(results, axes), *reversed(layers))),
        legend=legend([(actor.kind, actor.marker, actor.label) for actor, _ in lines]),
        table=_series_table(f"{panel.title}, {panel.unit}", lines, panel.values),
    )


def _series_table(caption: str, lines: Lines, values: Column) -> Markup:
    """A row for each bin, a column for each tenant."""
    columns: list[Sequence[Value]] = [values(one) for _, one in lines]
    rows = (
        (clock(start), *(number(value) for value in row))
        for start, *row in zip(lines[0][1].starts_s, *columns, strict=True)
    )
    return table(caption, ("from", *("all" if actor.tenant == ALL else actor.tenant for actor, _ in lines)), rows)


def _first_tokens(results: Results, axis: Scale, everyone: Drawn) -> Markup:
    limit = slo_limit(results, "ttft_p99_ms", ALL)
    axes = Axes(axis, fitting((*everyone.ttft_p99_ms, *everyone.ttft_p50_ms), also=[] if limit is None else [limit]))
    p50, p99 = (
        everyone.points(everyone.telling(everyone.ttft_p50_ms)),
        everyone.points(everyone.telling(everyone.ttft_p99_ms)),
    )
    layers = [
        *outside(results, axes),
        *mostly_failed(axes, everyone),
        band(axes, p50, p99, "s0"),
        line(axes, p99, "p99"),
        line(axes, p50, "s0"),
        failures(axes, everyone),
    ]
    if limit is not None:
        layers.append(level(axes, limit, f"limit of p99: {slo_value('ttft_p99_ms', limit)}"))
    worst = max((value for value in everyone.ttft_p99_ms if value is not None), default=None)
    rows = zip(everyone.starts_s, everyone.ttft_p50_ms, everyone.ttft_p99_ms, everyone.failed, strict=True)
    return picture(
        "Time to first token",
        joined(
            "Milliseconds, of the requests that succeeded, by when they were scheduled, all tenants.",
            log_note(axes.y),
            failed_note(everyone),
        ),
        plot(
            "t-ttft",
            "Time to first token over time",
            f"Median and 99th percentile; the highest is {milliseconds(worst)}.",
            axes,
            layers,
        ),
        legend=legend([("s0", None, Markup("p50")), ("p99", None, Markup("p99")), failure_legend()]),
        table=table(
            "TTFT of all tenants",
            ("from", "p50 ms", "p99 ms", "failed"),
            [(clock(start), number(p50), number(p99), number(bad)) for start, p50, p99, bad in rows],
        ),
    )


def slo_limit(results: Results, slo: str, where: str) -> float | None:
    return next((one.limit for one in results.slo if one.slo == slo and one.where == where), None)


def log_note(*scales: Scale) -> str:
    count = sum(scale.logarithmic for scale in scales)
    words = " The axis is logarithmic." if len(scales) == 1 else " One axis is logarithmic."
    return ("", words, " Both axes are logarithmic.")[count]
