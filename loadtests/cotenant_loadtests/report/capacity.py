"""`find-capacity`: the rates that were tried, and which of them kept the SLOs."""

from collections.abc import Sequence

from cotenant_loadtests.extras import Capacity, RateTried
from cotenant_loadtests.report.cast import legend
from cotenant_loadtests.report.headline import missed
from cotenant_loadtests.report.markup import Child, Markup, element, joined
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, Layer, line, mark, plot, upright
from cotenant_loadtests.report.scales import fitting, spreading
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.timelines import log_note
from cotenant_loadtests.report.wording import number, per_second, percent

VERDICTS = {
    "kept": ("kept the SLOs", "dot", "good"),
    "missed": ("missed", "cross", "bad"),
    "not_valid": ("not valid: this tool was too slow", "diamond", "warn"),
    "beyond_limits": ("beyond the limits", "plus", "warn"),
}


def capacity(found: Capacity) -> Markup:
    tried = [one for one in found.tried if one.repeats]
    return section(
        "x-find-capacity",
        "Capacity",
        element("div", _goodput(found, tried), _latency(found, tried), class_="pairs") if tried else None,
        element(
            "ul", (element("li", "At ", per_second(found.missed_per_s), ": ", missed(slo)) for slo in found.missed)
        )
        if found.missed
        else None,
        table("Rates, in the order they were tried", HEAD, (_cells(one) for one in found.tried), words=(1, 6)),
        lead=found.sentence,
    )


HEAD = ("rate", "verdict", "offered /s", "good /s", "TTFT p99 ms", "succeeded", "why")


def _goodput(found: Capacity, tried: Sequence[RateTried]) -> Markup:
    rates = [one.rate_per_s for one in tried]
    axes = Axes(
        spreading(rates), spreading([*rates, *(value for one in tried for value in one.goodput_per_s)], ticks=4)
    )
    points = [(one, value) for one in tried for value in one.goodput_per_s]
    low, high = max(axes.x.low, axes.y.low), min(axes.x.high, axes.y.high)
    ideal = line(axes, [(low + (high - low) * i / 50,) * 2 for i in range(51)], "plan")
    return picture(
        "Goodput at each rate",
        joined("Good answers per second, a marker for each repeat.", log_note(axes.y, axes.x)),
        plot(
            "x-good", "Goodput against rate", _words(tried), axes, (ideal, *_layers(found, axes, points)), height=210
        ),
        element("p", "requests per second", class_="axis"),
        legend=legend([*_legend(tried), ("plan", None, Markup("all good"))]),
    )


def _latency(found: Capacity, tried: Sequence[RateTried]) -> Markup:
    points = [(one, value) for one in tried for value in one.ttft_p99_ms]
    axes = Axes(spreading(one.rate_per_s for one in tried), fitting(value for _, value in points))
    return picture(
        "Time to first token at each rate, p99",
        joined("Milliseconds, a marker for each repeat.", log_note(axes.y, axes.x)),
        plot("x-ttft", "TTFT p99 against rate", _words(tried), axes, _layers(found, axes, points), height=210),
        element("p", "requests per second", class_="axis"),
        legend=legend(_legend(tried)),
    )


def _layers(found: Capacity, axes: Axes, points: Sequence[tuple[RateTried, float | None]]) -> tuple[Layer, ...]:
    markers = joined(
        mark(axes, one.rate_per_s, value, VERDICTS[one.verdict][1], VERDICTS[one.verdict][2])
        for one, value in points
        if value is not None
    )
    largest = (upright(axes, found.kept_per_s, f"kept {number(found.kept_per_s)} /s"),) if found.kept_per_s else ()
    return (*largest, Layer(fixed=markers))


def _legend(tried: Sequence[RateTried]) -> list[tuple[str, str | None, Markup]]:
    used = dict.fromkeys(one.verdict for one in tried)
    return [(f"none {VERDICTS[one][2]}", VERDICTS[one][1], Markup(VERDICTS[one][0])) for one in used]


def _words(tried: Sequence[RateTried]) -> str:
    return "; ".join(f"{per_second(one.rate_per_s)} {VERDICTS[one.verdict][0]}" for one in tried)


def _cells(one: RateTried) -> tuple[Child, ...]:
    return (
        per_second(one.rate_per_s),
        VERDICTS[one.verdict][0],
        ", ".join(number(value) for value in one.offered_per_s),
        ", ".join(number(value) for value in one.goodput_per_s),
        ", ".join(number(value) for value in one.ttft_p99_ms),
        ", ".join(percent(value) for value in one.success_rate),
        one.why or "; ".join(missed(slo) for slo in one.missed),
    )
