"""What a run measured, as lines and tables for a terminal. Rows are pure; one function prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cotenant_loadtests.gate import place, sentence
from cotenant_loadtests.likely_cause import likely_cause
from cotenant_loadtests.results import ALL, Group, Quantiles, Results
from cotenant_loadtests.terminal import complain, print_table, say
from cotenant_loadtests.writing import report_at

GROUP_COLUMNS = ("TENANT", "MODEL", "REQUESTS", "FAILED", "SUCCESS", "TTFT", "ITL", "TPOT", "E2E")
ERROR_COLUMNS = ("ERROR", "STATUS", "TENANT", "MODEL", "COUNT", "DETAIL")
EXPENDABLE = (7, 6, 8, 4)
"""Of GROUP_COLUMNS, what a narrow terminal goes without: TPOT, then ITL, E2E, SUCCESS."""
MOST_GROUPS = 20
MOST_ERRORS = 12
SLO_COLUMNS = ("SLO", "LIMIT", "MEASURED", "")


def print_summary(results: Results, folder: Path, unwritten: Mapping[Path, str]) -> None:
    """Tables on stdout; what was missed, or makes the run not valid, on stderr. `unwritten`: its files."""
    say()
    say(headline(results))
    _print_groups(results)
    if results.errors:
        say()
        print_table(ERROR_COLUMNS, error_rows(results), right=(1, 4), expendable=(3, 1))
        if len(results.errors) > MOST_ERRORS:
            say(f"the {MOST_ERRORS} most frequent of {len(results.errors)}; all of them are in the report")
    if results.slo:
        say()
        print_table(SLO_COLUMNS, slo_rows(results), right=(1, 2), expendable=(1,))
    say()
    say(tool_line(results))
    say(f"{verdict_line(results)}; {report_at(folder / 'report.html', unwritten)}")
    if (cause := likely_cause(results)) is not None:
        complain("likely cause", cause)
    for reason in results.validity.reasons:
        complain("not valid", reason)
    if results.validity.valid:
        for slo in results.slo:
            if not slo.passed:
                complain("missed", sentence(slo))


def _print_groups(results: Results) -> None:
    left_out = print_table(
        GROUP_COLUMNS, group_rows(results), right=range(2, len(GROUP_COLUMNS)), expendable=EXPENDABLE
    )
    say("TTFT, ITL, TPOT, E2E: p50 / p99 in ms, from the scheduled time")
    if left_out:
        say(f"no room here for {', '.join(left_out)}: see the report, or a wider terminal")
    if len(results.groups) > MOST_GROUPS:
        say(f"the {MOST_GROUPS} busiest of {len(results.groups)}; all of them are in the report")


def headline(results: Results) -> str:
    ended = ", interrupted" if results.interrupted else ""
    measured = f"measured from {results.window_from_s:,.1f} to {results.window_to_s:,.1f} s"
    if not results.total.scheduled:
        return f"{results.name} against {results.target}: nothing measured in {results.duration_s:,.1f} s{ended}"
    return (
        f"{results.name} against {results.target}: {measured}, ended after {results.duration_s:,.1f} s{ended}; "
        f"{results.total.offered_per_s:,.1f} requests/s, {results.total.completion_tokens_per_s:,.0f} tokens/s"
    )


def group_rows(results: Results) -> list[tuple[str, ...]]:
    """One for each tenant and model (of many: the busiest, and one for the others), and one for all of several."""
    groups: Sequence[Group] = results.groups
    if len(groups) == 1:
        return [_group_row(groups[0])]
    shown, others = groups, list[tuple[str, ...]]()
    if len(groups) > MOST_GROUPS:
        busiest = sorted(groups, key=lambda group: -group.scheduled)
        shown, others = busiest[:MOST_GROUPS], [_others_row(busiest[MOST_GROUPS:])]
    return [*map(_group_row, shown), *others, _group_row(results.total)]


def _others_row(groups: Sequence[Group]) -> tuple[str, ...]:
    """Without latencies: percentiles do not add up."""
    scheduled, failed = sum(group.scheduled for group in groups), sum(group.failed for group in groups)
    success = f"{1 - failed / scheduled:.2%}" if scheduled else "-"
    return (f"{len(groups)} others", "", f"{scheduled:,}", f"{failed:,}", success, "-", "-", "-", "-")


def error_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            error.outcome,
            str(error.status or ""),
            error.tenant,
            error.model,
            f"{error.count:,}",
            error.detail,
        )
        for error in sorted(results.errors, key=lambda error: -error.count)[:MOST_ERRORS]
    ]


def slo_rows(results: Results) -> list[tuple[str, ...]]:
    return [
        (
            place(slo),
            f"{slo.limit:g}",
            ("failures" if slo.among_failures else "nothing") if slo.value is None else f"{slo.value:.5g}",
            ("passed" if slo.passed else "missed") if results.validity.valid else "not judged",
        )
        for slo in results.slo
    ]


def tool_line(results: Results) -> str:
    """How the tool itself did."""
    validity = results.validity
    peak = max((load.cpu_share_peak for load in validity.processes), default=0.0)
    used = len(validity.processes)
    return (
        f"sent late by p50 {_ms(validity.lateness_ms.p50)}, p99 {_ms(validity.lateness_ms.p99)} ms; "
        f"{used} worker process{'es' if used != 1 else ''}, the busiest at {peak:.0%} of a core for a second"
        + (f"; {validity.processes_needed} would be enough" if validity.processes_needed > used else "")
    )


def verdict_line(results: Results) -> str:
    """What the gate says; of an interrupted run, about what was measured of it."""
    return f"interrupted; so far {_verdict(results)}" if results.interrupted else _verdict(results)


def _verdict(results: Results) -> str:
    if results.verdict == "not_valid":
        return "not valid"
    missed = sum(not slo.passed for slo in results.slo)
    if len(results.slo) == 1:
        return "the SLO was missed" if missed else "the SLO passed"
    if missed:
        return f"{missed} of {len(results.slo)} SLOs missed"
    return f"all {len(results.slo)} SLOs passed" if results.slo else "valid, and no SLO was set"


def _group_row(group: Group) -> tuple[str, ...]:
    return (
        "all" if group.tenant == ALL else group.tenant,
        "" if group.model == ALL else group.model,
        f"{group.scheduled:,}",
        f"{group.failed:,}",
        f"{group.success_rate:.2%}" if group.scheduled else "-",
        *(_pair(of) for of in (group.ttft_ms, group.itl_ms, group.tpot_ms, group.e2e_ms)),
    )


def _pair(quantiles: Quantiles) -> str:
    return f"{_ms(quantiles.p50)} / {_ms(quantiles.p99)}" if quantiles.count else "-"


def _ms(value_ms: float) -> str:
    return f"{value_ms:,.0f}" if value_ms >= 100 else f"{value_ms:.1f}" if value_ms >= 10 else f"{value_ms:.2f}"
