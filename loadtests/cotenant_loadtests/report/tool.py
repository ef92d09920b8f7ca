"""The tool itself: how late it was, and how busy. What it cannot vouch for, nobody should read."""

from collections.abc import Sequence

from cotenant_loadtests.report.cast import legend
from cotenant_loadtests.report.markup import Markup, element, joined
from cotenant_loadtests.report.percentiles import curve, summary
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import Axes, level, line, percent_of, plot
from cotenant_loadtests.report.rows import row, rows
from cotenant_loadtests.report.scales import fitting, percentile
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.timelines import log_note
from cotenant_loadtests.report.wording import number, percent, plural, size, whole
from cotenant_loadtests.results import MOST_LATENESS_P99_MS, ProcessLoad, Quantiles, Results

MOST_PROCESSES = 16


def tool(results: Results) -> Markup:
    validity = results.validity
    words = (
        "It kept its schedule."
        if validity.valid
        else "It did not keep its schedule, or the run cannot be judged: see the top."
    )
    used = plural(len(validity.processes), "process", "processes")
    return section(
        "tool",
        "The load generator itself",
        element("div", _lateness(validity.lateness_ms), _processes(validity.processes), class_="pairs"),
        lead=f"{words} {used} used, {validity.processes_needed} needed.",
    )


def _lateness(lateness: Quantiles) -> Markup:
    if not lateness.count:
        return picture(
            "Lateness", "From scheduled to sent.", element("p", "Nothing was sent.", class_="quiet nothing")
        )
    points, limit = curve(lateness), f"{MOST_LATENESS_P99_MS:g} ms"
    axes = Axes(percentile(lateness.count), fitting((value for _, value in points), also=[MOST_LATENESS_P99_MS]))
    figures = (
        ("p50", lateness.p50),
        ("p90", lateness.p90),
        ("p99", lateness.p99),
        ("p99.9", lateness.p999),
        ("max", lateness.max),
    )
    return picture(
        "Lateness",
        joined(f"Milliseconds from scheduled to sent; at p99 it may be {limit}.", log_note(axes.y)),
        plot(
            "l-late",
            "Percentile curve of this tool's lateness",
            summary(lateness).capitalize(),
            axes,
            (
                line(axes, points, "s0"),
                level(axes, MOST_LATENESS_P99_MS, f"limit of p99: {limit}"),
            ),
            height=150,
        ),
        element("p", "percentile", class_="axis"),
        legend=legend([("s0", None, Markup("all requests"))]),
        table=table("Lateness", ("percentile", "ms"), [(name, number(value)) for name, value in figures]),
    )


def _processes(processes: Sequence[ProcessLoad]) -> Markup:
    cells = [
        (
            str(load.process),
            percent(load.cpu_share),
            percent(load.cpu_share_peak),
            whole(load.requests),
            size(load.max_rss_bytes),
        )
        for load in processes
    ]
    bars = [_load_bar(load) for load in sorted(processes, key=lambda load: -load.cpu_share)[:MOST_PROCESSES]]
    more = f" The {MOST_PROCESSES} busiest of {len(processes)}." if len(processes) > MOST_PROCESSES else ""
    return picture(
        "CPU",
        f"Of one core each, over the window; the thin mark is the busiest second.{more}",
        rows(bars) if bars else element("p", "No process ran.", class_="quiet nothing"),
        table=table("Each process", ("process", "CPU", "busiest second", "requests", "memory"), cells),
    )


def _load_bar(load: ProcessLoad) -> Markup:
    share, peak = (percent_of(min(1.0, max(0.0, value))) for value in (load.cpu_share, load.cpu_share_peak))
    drawing = joined(
        element("rect", width="100%", height="100%", class_="track"),
        element("rect", width=share, height="100%", class_="fill"),
        element("line", x1=peak, x2=peak, y1="0", y2="100%", class_="peak"),
    )
    return row(
        f"l-cpu-{load.process}",
        f"process {load.process}",
        drawing,
        percent(load.cpu_share),
        title=f"CPU of process {load.process}",
        told=f"{percent(load.cpu_share)} of a core, {percent(load.cpu_share_peak)} in its busiest second",
        height=14,
    )
