"""What a command beside `run` found, as tables and sentences for a terminal; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cotenant_loadtests.bootstrap import FEWEST_SEGMENTS
from cotenant_loadtests.compare import too_few
from cotenant_loadtests.extras import (
    Capacity,
    ColdStarts,
    Compared,
    Comparison,
    Drift,
    FairnessFound,
    Found,
    Interval,
    RateTried,
    Soak,
)
from cotenant_loadtests.gate import measured, place
from cotenant_loadtests.units import counted

Rows = Sequence[Sequence[str]]
NOTHING = "-"
TOGETHER = (
    "intervals: 95 % for all figures together, so of equal servers one in twenty comparisons shows a difference"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """`tables`: header and rows of each. `sentences` come after them, `problems` last."""

    tables: Sequence[tuple[Sequence[str], Rows]]
    sentences: Sequence[str] = ()
    problems: Sequence[str] = field(default=())


def findings_of(found: Found) -> Findings:
    match found:
        case Comparison():
            return of_comparison(found)
        case Capacity():
            return of_capacity(found)
        case FairnessFound():
            return of_fairness(found)
        case ColdStarts():
            return of_cold_starts(found)
        case Soak():
            return of_soak(found)


def of_comparison(found: Comparison) -> Findings:
    header = ("FIGURE", "A", "B", "B / A", "95 % INTERVAL", "")
    rows = [_compared_row(metric) for metric in found.metrics if metric.a is not None or metric.b is not None]
    few = too_few(found.rounds)
    return Findings(
        tables=[(header, rows)],
        sentences=[
            f"A is {found.a}",
            f"B is {found.b}",
            f"{counted(found.rounds, 'round')} of A and B in turn; figures are medians of the rounds",
            few or TOGETHER,
            *(f"fail if {one.text}: {'FAILED' if one.failed else 'not shown'}" for one in found.conditions),
        ],
        problems=found.not_valid,
    )


def _compared_row(metric: Compared) -> list[str]:
    words = {
        "none_shown": "no difference shown",
        "too_few_rounds": "too few rounds",
        "not_measured": "not measured in each round",
        "higher": "B is worse" if metric.lower_is_better else "B is better",
        "lower": "B is better" if metric.lower_is_better else "B is worse",
    }
    return [
        metric.metric,
        number(metric.a),
        number(metric.b),
        number(metric.ratio),
        interval(metric.interval),
        words[metric.difference],
    ]


def of_capacity(found: Capacity) -> Findings:
    header = ("RATE /s", "OFFERED /s", "RUNS", "VERDICT", "TTFT P99 ms", "SUCCESS", "MISSED")
    return Findings(tables=[(header, [_rate_row(one) for one in found.tried])], sentences=[found.sentence])


def _rate_row(one: RateTried) -> list[str]:
    return [
        number(one.rate_per_s, 4),
        " ".join(number(rate, 3) for rate in one.offered_per_s),
        " ".join(one.repeats),
        one.verdict.replace("_", " "),
        " ".join(number(time) for time in one.ttft_p99_ms),
        " ".join(f"{rate:.2%}" for rate in one.success_rate),
        ", ".join(f"{place(slo)}: {measured(slo)}" for slo in one.missed),
    ]


def of_fairness(found: FairnessFound) -> Findings:
    service = [
        [one.tenant, "light" if one.light else "", f"{one.offered_share:.1%}", f"{sum(one.completion_tokens):,}"]
        for one in found.tenants
    ]
    light = [
        [
            one.tenant,
            f"{one.requests:,}",
            number(one.together_ttft_p50_ms),
            number(one.alone_ttft_p50_ms),
            number(one.ratio_p50, 3),
            number(one.together_ttft_p99_ms),
            number(one.alone_ttft_p99_ms),
            number(one.ratio_p99, 3),
        ]
        for one in found.light
    ]
    jain = (
        "no two tenants were backlogged together, so there is no index of fairness"
        if found.jain is None
        else f"Jain's index {found.jain:.3f}, over the {found.backlogged_s:.1f} s with several tenants backlogged"
    )
    return Findings(
        tables=[
            (("TENANT", "", "OFFERED", "TOKENS SERVED"), service),
            (("LIGHT TENANT", "REQUESTS", "TTFT P50 ms", "ALONE", "RATIO", "TTFT P99 ms", "ALONE", "RATIO"), light),
        ],
        sentences=[jain],
        problems=found.not_valid,
    )


def of_cold_starts(found: ColdStarts) -> Findings:
    wakes = [
        [
            one.model,
            str(one.wakes),
            str(one.failed),
            *(
                number(value) if one.first_token_ms.count else NOTHING
                for value in (one.first_token_ms.p50, one.first_token_ms.p90, one.first_token_ms.max)
            ),
        ]
        for one in found.models
    ]
    phases = [
        [one.model, phase.name, number(phase.to_ms - phase.from_ms), number(phase.to_ms)]
        for one in found.models
        for phase in one.phases
    ]
    cold = (
        "cold: the server said that it had no engine"
        if found.idle_s is None
        else f"taken for cold after {found.idle_s:g} s without requests"
    )
    return Findings(
        tables=[
            (("MODEL", "WAKES", "FAILED", "FIRST TOKEN P50 ms", "P90", "MAX"), wakes),
            (("MODEL", "PHASE", "MEDIAN ms", "UNTIL ms"), phases),
        ],
        sentences=[cold] if found.models else ["no model was woken"],
        problems=found.not_valid,
    )


def of_soak(found: Soak) -> Findings:
    header = ("FIGURE", "BEGAN AT", "PER HOUR", "95 % INTERVAL", "")
    drifts = [_drift_row(one) for one in found.drifts if one.trend != "not_measured"]
    valid = sum(one.verdict != "not_valid" for one in found.segments)
    missed = sum(one.verdict == "missed" for one in found.segments)
    few = f"fewer than {FEWEST_SEGMENTS} valid segments show no drift; take more hours, or a shorter duration_s"
    return Findings(
        tables=[(header, drifts)],
        sentences=[
            f"{counted(len(found.segments), 'segment')} in {found.ran_s / 3600:.2g} h, {missed} missed an SLO",
            *([few] if valid < FEWEST_SEGMENTS else []),
        ],
        problems=[
            f"segment {place}: {' '.join(one.why_not_valid)}"
            for place, one in enumerate(found.segments, start=1)
            if one.verdict == "not_valid"
        ],
    )


def _drift_row(one: Drift) -> list[str]:
    words = {
        "rises": "rises",
        "falls": "falls",
        "none_shown": "no drift shown",
        "too_few_segments": "too few segments",
        "not_measured": "",
    }
    return [one.metric, number(one.begin), number(one.per_hour, 3), interval(one.interval), words[one.trend]]


def interval(found: Interval | None) -> str:
    return NOTHING if found is None else f"{number(found.low)} … {number(found.high)}"


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, never with an exponent: `12.35`, `1,234,000`."""
    if value is None:
        return NOTHING
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    text = f"{value:#.{digits}g}".rstrip(".")
    return text if "e" not in text else f"{value:.6f}"
