"""The verdict in words: of a run by its SLOs, of the commands beside `run` by what they were asked; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotenant_loadtests.compare import too_few
from cotenant_loadtests.extras import Capacity, ColdStarts, Comparison, FairnessFound, Found, Soak
from cotenant_loadtests.gate import bound, why_no_value
from cotenant_loadtests.report.wording import per_second, plural, slo_value, whole
from cotenant_loadtests.results import ALL, Results, SloResult

NOT_VALID = "NOT VALID"
MOST_NAMED = 4


@dataclass(frozen=True)
class Headline:
    words: str
    lines: tuple[str, ...] = ()
    """Each SLO or condition that was missed."""
    unsure: bool = False
    """Nothing was shown, for or against."""


def headline(results: Results, found: Found | None) -> Headline:
    if results.verdict == "not_valid":
        reasons = tuple(sentence(reason) for reason in results.validity.reasons)
        return Headline(NOT_VALID, reasons or ("No run was whole, so there is nothing to judge.",))
    match found:
        case Comparison():
            return _of_comparison(found)
        case Capacity():
            return _of_capacity(found)
        case Soak() if any(one.verdict == "missed" for one in found.segments):
            return _of_segments(found)
    return _of_slos(results)


def not_judged(results: Results) -> str | None:
    """Failures of tenants on which no SLO is set: why a run in which so many requests failed has passed."""
    set_on = {slo.where.partition("/")[0] for slo in results.slo if slo.slo != "jain"}
    free = [one for one in results.tenants if one.failed and one.tenant not in set_on]
    if not results.slo or ALL in set_on or not free:
        return None
    free.sort(key=lambda one: -one.failed)
    named = ", ".join(f"{whole(one.failed)} of {one.tenant}" for one in free[:MOST_NAMED])
    others = f" and {plural(len(free) - MOST_NAMED, 'other')}" if len(free) > MOST_NAMED else ""
    return (
        f"{whole(results.total.failed)} of {plural(results.total.scheduled, 'request')} failed: {named}{others}. "
        f"The scenario sets no limit on {'this tenant' if len(free) == 1 else 'these tenants'}, so "
        "such failures are not judged: the SLOs are about others."
    )


def about_the_run(found: Found | None) -> str | None:
    """Which of a command's runs everything but its own figures is about."""
    match found:
        case Comparison():
            return "the last round of B"
        case Capacity():
            return "the last run at the largest rate that kept the SLOs, else the last run"
        case FairnessFound():
            return "the run of all tenants together"
        case ColdStarts():
            return "all wakes, one after the other without the waits"
        case Soak():
            return "the last segment"
    return None


def missed(result: SloResult) -> str:
    """`ttft_p99_ms of ads is 812 ms, limit 500 ms`."""
    where = "all requests" if result.where == ALL else result.where
    limit = f"{_limit_words(result.slo)} {slo_value(result.slo, result.limit)}"
    if result.value is None:
        return f"{result.slo} of {where}: {why_no_value(result)}, {limit}"
    return f"{result.slo} of {where} is {slo_value(result.slo, result.value)}, {limit}"


def sentence(text: str) -> str:
    """With a capital, and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _of_slos(results: Results) -> Headline:
    misses = [slo for slo in results.slo if not slo.passed]
    if not results.slo:
        return Headline("Measured; no SLO was set")
    if misses:
        return Headline(f"Missed {len(misses)} of {plural(len(results.slo), 'SLO')}", _lines(misses))
    one = len(results.slo) == 1
    return Headline(f"Passed: {'the SLO holds' if one else f'all {len(results.slo)} SLOs hold'}")


def _of_comparison(found: Comparison) -> Headline:
    failed = tuple(f"{one.text} is shown" for one in found.conditions if one.failed)
    if failed:
        return Headline(f"Missed {len(failed)} of {plural(len(found.conditions), 'condition')}", failed)
    few = too_few(found.rounds)
    if few is not None:
        return Headline("Too few rounds: nothing is shown", (sentence(few),), unsure=True)
    differences = sum(one.difference in ("higher", "lower") for one in found.metrics)
    words = f"{plural(differences, 'difference')} shown" if differences else "no difference shown"
    return Headline(f"Passed: {words}" if found.conditions else f"Compared: {words}")


def _of_capacity(found: Capacity) -> Headline:
    if found.kept_per_s is not None:
        return Headline(f"Keeps its SLOs at {per_second(found.kept_per_s)}", (found.sentence,))
    return Headline("Missed at the lowest rate that was tried", (found.sentence, *_lines(found.missed)))


def _of_segments(found: Soak) -> Headline:
    at = [i + 1 for i, one in enumerate(found.segments) if one.verdict == "missed"]
    lines = tuple(
        f"missed in segment {number}: {missed(slo)}" for number in at[:3] for slo in found.segments[number - 1].missed
    )
    return Headline(f"Missed in {len(at)} of {plural(len(found.segments), 'segment')}", lines)


def _lines(misses: Sequence[SloResult]) -> tuple[str, ...]:
    return tuple(f"missed: {missed(slo)}" for slo in misses)


def _limit_words(slo: str) -> str:
    """Whether the limit holds from above or from below."""
    return "limit" if bound(slo) == "at most" else "must be at least"
