"""`soak`: whether latency and memory drift over the hours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_loadtests.extras import Drift, Soak, SoakSegment
from cotenant_loadtests.report.cast import legend
from cotenant_loadtests.report.headline import missed, sentence
from cotenant_loadtests.report.markup import Child, Markup, element
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, Layer, line, mark, plot
from cotenant_loadtests.report.scales import linear, time
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.wording import duration, number, percent, plural, size, whole

Value = float | None


@dataclass(frozen=True)
class Figure:
    metric: str
    title: str
    of: Callable[[SoakSegment], Value]
    words: Callable[[float], str]


FIGURES = (
    Figure("ttft_p50_ms", "Time to first token, p50", lambda one: one.ttft_p50_ms, lambda v: f"{number(v)} ms"),
    Figure("ttft_p99_ms", "Time to first token, p99", lambda one: one.ttft_p99_ms, lambda v: f"{number(v)} ms"),
    Figure("e2e_p99_ms", "Whole answer, p99", lambda one: one.e2e_p99_ms, lambda v: f"{number(v)} ms"),
    Figure("completion_tokens_per_s", "Tokens", lambda one: one.completion_tokens_per_s, lambda v: f"{number(v)} /s"),
    Figure("server_rss_bytes", "Memory of the server", lambda one: one.server_rss_bytes, size),
    Figure("tool_rss_bytes", "Memory of this tool", lambda one: one.tool_rss_bytes, size),
)


def drift(found: Soak) -> Markup:
    drifts = {one.metric: one for one in found.drifts}
    reasons = [f"Segment {i + 1}: {why}" for i, one in enumerate(found.segments) for why in one.why_not_valid]
    cut = "; interrupted" if found.interrupted else ""
    measured = [figure for figure in FIGURES if any(figure.of(one) is not None for one in found.segments)]
    pictures = [_picture(i, one, found.segments, drifts.get(one.metric)) for i, one in enumerate(measured)]
    return section(
        "x-soak",
        "Drift",
        element("ul", (element("li", sentence(reason)) for reason in reasons), class_="problems")
        if reasons
        else None,
        element("div", pictures, class_="pairs"),
        table("Each segment", HEAD, (_cells(one) for one in found.segments), words=(1, 2)),
        lead=f"{plural(len(found.segments), 'segment')} in {duration(found.ran_s)} of {number(found.hours)} h{cut}. "
        "A trend is named only where its interval of 95 % confidence does not hold 0.",
    )


def trend(one: Drift | None, words: Callable[[float], str]) -> str:
    """`rises 12 MB per hour (8 MB to 15 MB)`, `no drift shown`, …"""
    if one is None:
        return ""
    if one.trend == "too_few_segments":
        return "too few segments to say"
    if one.trend == "not_measured" or one.per_hour is None:
        return "not measured"
    if one.trend == "none_shown":
        return "no drift shown"
    between = f" ({words(one.interval.low)} to {words(one.interval.high)})" if one.interval else ""
    return f"{one.trend} {words(abs(one.per_hour))} per hour{between}"


VERDICTS = {"passed": "passed", "missed": "missed", "not_valid": "not valid"}
HEAD = (
    *("from", "verdict", "missed", "requests", "failed", "succeeded", "TTFT p50 ms", "TTFT p99 ms", "E2E p99 ms"),
    *("tokens /s", "server memory", "tool memory"),
)


def _picture(i: int, figure: Figure, segments: Sequence[SoakSegment], found: Drift | None) -> Markup:
    points = [((one.from_s + one.to_s) / 2, figure.of(one)) for one in segments]
    highest = max((value for _, value in points if value is not None), default=1.0)
    axes = Axes(
        time(max(one.to_s for one in segments)),
        linear(highest, label=figure.words if "bytes" in figure.metric else number),
    )
    layers = [
        line(axes, points, "s1"),
        Layer(fixed=Markup("".join(mark(axes, x, y, "dot", "s1") for x, y in points if y is not None))),
    ]
    if (
        found is not None
        and found.trend in ("rises", "falls")
        and found.begin is not None
        and found.per_hour is not None
    ):
        ends = (segments[0].from_s, segments[-1].to_s)
        layers.append(line(axes, [(x, found.begin + found.per_hour * x / 3600) for x in ends], "p99"))
    drawing = plot(
        f"x-soak-{i}", f"{figure.title} over the hours", trend(found, figure.words), axes, layers, height=130
    )
    fitted = [("p99", None, Markup("trend"))] if len(layers) > 2 else []
    return picture(
        figure.title,
        element("strong", trend(found, figure.words)),
        drawing,
        legend=legend([("s1", "dot", Markup("each segment")), *fitted]),
    )


def _cells(one: SoakSegment) -> tuple[Child, ...]:
    latencies = (one.ttft_p50_ms, one.ttft_p99_ms, one.e2e_p99_ms, one.completion_tokens_per_s)
    return (
        duration(one.from_s),
        VERDICTS[one.verdict],
        "; ".join(missed(slo) for slo in one.missed) or "–",
        whole(one.requests),
        whole(one.failed),
        percent(one.success_rate),
        *(number(value) for value in latencies),
        size(one.server_rss_bytes) if one.server_rss_bytes is not None else "–",
        size(one.tool_rss_bytes),
    )
