"""What was run, the key figures, and each SLO with its figure."""

import re
from collections.abc import Iterator

from cotenant_loadtests.gate import bound, why_no_value
from cotenant_loadtests.report.cast import by_traffic
from cotenant_loadtests.report.markup import Child, Markup, element, joined, named
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.verdict import icon
from cotenant_loadtests.report.wording import (
    NOTHING,
    clock_range,
    duration,
    milliseconds,
    number,
    per_second,
    percent,
    plural,
    slo_value,
    whole,
)
from cotenant_loadtests.results import ALL, MOST_LATENESS_P99_MS, Results

HASH_DIGITS = 12
"""Enough to tell plans apart; all of them stand with the scenario."""
MOST_ROWS = 12


def what_was_run(results: Results, shown: str | None) -> Markup:
    """`shown`: of the runs of a command beside `run`, which one this and all below is about."""
    return section(
        "run",
        "What was run",
        element("dl", (_fact(name, value) for name, value in _facts(results, shown)), class_="facts"),
    )


def key_figures(results: Results) -> Markup:
    return section(
        "figures",
        "Key figures",
        element("ul", (_tile(*figure) for figure in _figures(results)), class_="tiles"),
        _each_tenant(results) if len(results.tenants) > 1 else None,
        lead=_what_is_measured(results),
    )


def _what_is_measured(results: Results) -> str:
    if not results.total.scheduled:
        return "Nothing was measured: no request was scheduled within the window and came to an end."
    return (
        "All tenants and models together, measured from "
        f"{duration(results.window_from_s)} to {duration(results.window_to_s)} of the run. "
        "Latency is that of requests that succeeded, and counts from the moment a request was scheduled, so "
        "waiting is never hidden."
    )


def _each_tenant(results: Results) -> Markup:
    """Who fared how: the figure of all hides one that did not."""
    busiest = by_traffic(results.tenants)
    left_out = len(busiest) - MOST_ROWS
    judged = any(slo.where.partition("/")[0] != ALL for slo in results.slo)
    more = f"; the {MOST_ROWS} busiest of {len(busiest)}, all of them below" if left_out > 0 else ""
    rows = (
        (
            named(group.tenant),
            whole(group.scheduled),
            percent(group.success_rate) if group.scheduled else NOTHING,
            number(group.ttft_ms.p50 if group.ttft_ms.count else None),
            number(group.ttft_ms.p99 if group.ttft_ms.count else None),
            *((_held(results, group.tenant),) if judged else ()),
        )
        for group in busiest[:MOST_ROWS]
    )
    head = ("tenant", "requests", "success", "TTFT p50 ms", "TTFT p99 ms", *(("its SLOs",) if judged else ()))
    return table(f"Each tenant{more}", head, rows, snug=True)


def _held(results: Results, tenant: str) -> Child:
    own = [slo for slo in results.slo if slo.where.partition("/")[0] == tenant]
    if not own:
        return "none set"
    if results.verdict == "not_valid":
        return "not judged"
    held = sum(slo.passed for slo in own)
    return joined(icon("check" if held == len(own) else "cross"), f"{held} of {len(own)} held")


def objectives(results: Results) -> Markup:
    if not results.slo:
        return section("slo", "SLOs", element("p", "The scenario sets none.", class_="quiet"))
    judged = results.verdict != "not_valid"
    rows = [
        (
            named(slo.slo),
            named("all requests" if slo.where == ALL else slo.where),
            _status(slo.passed) if judged else "not judged",
            why_no_value(slo) if slo.value is None else slo_value(slo.slo, slo.value),
            f"{bound(slo.slo)} {slo_value(slo.slo, slo.limit)}",
        )
        for slo in sorted(results.slo, key=lambda slo: slo.passed)
    ]
    held = sum(slo.passed for slo in results.slo)
    return section(
        "slo",
        "SLOs",
        table("Each SLO with its figure", ("SLO", "of", "", "measured", "limit"), rows, words=(1, 2), snug=True),
        lead=f"{held} of {len(results.slo)} held." if judged else "The run is not valid, so none is judged.",
    )


def _status(passed: bool) -> Markup:
    return joined(icon("check" if passed else "cross"), "held" if passed else "missed")


def started_utc(iso: str) -> str:
    """`2026-11-26T14:03:11.123+00:00` → `2026-11-26 14:03:11 UTC`; anything else as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)", iso)
    return f"{match[1]} {match[2]} UTC" if match else iso


def _facts(results: Results, shown: str | None) -> Iterator[tuple[str, Child]]:
    if shown is not None:
        yield "Below", f"{shown[:1].upper()}{shown[1:]}; the command's own figures stand above"
    yield "Target", named(results.target)
    yield "Started", started_utc(results.started)
    yield (
        "Duration",
        joined(
            duration(results.duration_s),
            element("span", f" ({_window(results)})", class_="quiet"),
        ),
    )
    yield (
        "Requests",
        joined(
            whole(results.total.scheduled),
            " measured of ",
            plural(sum(process.requests for process in results.validity.processes), "sent", "sent"),
        ),
    )
    yield "Traffic", f"{plural(len(results.tenants), 'tenant')}, {plural(len(results.models), 'model')}"
    yield (
        "Tool",
        f"cotenant {results.cotenant_version}, {plural(len(results.validity.processes), 'process', 'processes')}",
    )
    yield "Machine", named(results.machine)
    yield "Seed", str(results.seed)
    yield "Plan", element("code", results.plan_sha256[:HASH_DIGITS])


def _window(results: Results) -> str:
    if not results.total.scheduled:
        return "nothing measured"
    return f"measured: what was scheduled from {clock_range(results.window_from_s, results.window_to_s)}"


def _good(results: Results) -> str:
    """What the scenario calls a good request."""
    limits = results.scenario.get("goodput")
    known = limits.items() if isinstance(limits, dict) else ()
    words = [
        f"{name.removesuffix('_ms').upper()} ≤ {milliseconds(float(limit))}"
        for name, limit in known
        if isinstance(limit, int | float)
    ]
    return ", ".join(["succeeded", *words])


def _fact(name: str, value: Child) -> Markup:
    return element("div", element("dt", name), element("dd", value))


def _figures(results: Results) -> Iterator[tuple[str, str, str]]:
    """(name, value, what stands below it)."""
    total, lateness = results.total, results.validity.lateness_ms
    yield (
        "Requests that succeeded",
        percent(total.success_rate) if total.scheduled else NOTHING,
        f"{whole(total.failed)} of {whole(total.scheduled)} failed" if total.scheduled else "none was measured",
    )
    good = f"of {per_second(total.offered_per_s)} offered; good: {_good(results)}"
    yield "Goodput", per_second(total.goodput_per_s if total.scheduled else None), good
    for name, values, meaning in (
        ("First token (TTFT)", total.ttft_ms, "until the first text comes"),
        ("Between tokens (ITL)", total.itl_ms, "gap from one piece of text to the next"),
        ("Whole answer (E2E)", total.e2e_ms, "until the last of it came"),
    ):
        shown = values.count > 0
        middle = milliseconds(values.p50) if shown else "none measured"
        yield f"{name}, p99", milliseconds(values.p99 if shown else None), f"p50 {middle}; {meaning}"
    yield "Tokens", per_second(total.completion_tokens_per_s), f"{whole(total.completion_tokens)} in answers"
    if len(results.tenants) > 1:
        yield (
            "Fairness (Jain)",
            number(results.fairness.jain),
            f"1: each got its fair part, in {duration(results.fairness.backlogged_s)} contended",
        )
    yield (
        "Own lateness, p99",
        milliseconds(lateness.p99 if lateness.count else None),
        f"of this tool; limit {MOST_LATENESS_P99_MS:g} ms",
    )


def _tile(name: str, value: str, below: str) -> Markup:
    figure, _, unit = value.partition(" ")
    if unit and value[0].isdigit():
        shown: Child = joined(figure, element("small", f" {unit}"))
    else:
        shown = value
    return element(
        "li",
        element("span", name, class_="name"),
        element("span", shown, class_="value"),
        element("span", below, class_="below"),
    )
