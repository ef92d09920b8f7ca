"""`find-capacity`: the largest rate at which a scenario keeps its SLOs; pure.

Doubles from the first rate until one misses (or up to the highest asked for); where the first one misses, halves it
until one is kept, at most HALVINGS times. Then halves the space between the largest that kept and the smallest that
missed, until that is at most `within` of the rate. A rate is decided by the
majority of its repeats; of an even number, half is a miss. A run that is not valid says nothing about the server: it
is repeated once, and if that is not valid either, the rate and all above it are out of this tool's reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cotenant_loadtests.extras import Capacity, KeptOrNot, RateTried, SearchEnd
from cotenant_loadtests.gate import measured, place
from cotenant_loadtests.results import Results, Verdict
from cotenant_loadtests.run_output import Failed

MOST_RATES = 60
"""A search from 1 to 10^12 within 5 % takes fewer."""
HALVINGS = 10
"""To a thousandth of the first rate."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """The rate cannot be tried: the plan breaks a bound of the scenario's limits."""

    why: str


Measure = Callable[[float, int], Results | Beyond | Failed]
"""(factor on the scenario's rates, number of the run from 0) → its results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Rates are of all streams together, per second."""

    scenario_per_s: float
    from_per_s: float
    to_per_s: float | None
    """None: double until a rate misses."""
    least_per_s: float = 0.0
    """Below it nothing can be told: a run would have too few requests."""
    within: float = 0.05
    repeats: int = 2


@dataclass(slots=True)
class _Trail:
    """What was tried so far, and the results to show."""

    tried: list[RateTried] = field(default_factory=list)
    kept: Results | None = None
    """Of the largest rate that was kept."""
    last: Results | None = None
    runs: int = 0
    interrupted: bool = False


def find_capacity(
    search: Search, measure: Measure, on_tried: Callable[[RateTried], None] = lambda tried: None
) -> tuple[Capacity, Results | None]:
    """What was found and the results beside it; those are None only where no run could be made."""
    trail = _Trail()
    while not trail.interrupted and len(trail.tried) < MOST_RATES:
        rate = next_rate(search, trail.tried)
        if rate is None:
            break
        tried = _try(rate, search, measure, trail)
        if tried is not None:
            trail.tried.append(tried)
            on_tried(tried)
    return _found(search, trail), trail.kept or trail.last


def next_rate(search: Search, tried: Sequence[RateTried]) -> float | None:
    """None when the search is over."""
    if not tried:
        return search.from_per_s
    kept, bound = bounds(tried)
    if kept is None:
        return lower(search, tried)
    if bound is None:
        if search.to_per_s is None:
            return 2 * kept
        return min(2 * kept, search.to_per_s) if kept < search.to_per_s else None
    return (kept + bound) / 2 if bound - kept > search.within * bound else None


def lower(search: Search, tried: Sequence[RateTried]) -> float | None:
    """Half of the lowest rate where none was kept; None where that is not worth trying."""
    rate = min(one.rate_per_s for one in tried) / 2
    return rate if len(tried) <= HALVINGS and rate >= search.least_per_s else None


def bounds(tried: Sequence[RateTried]) -> tuple[float | None, float | None]:
    """The largest rate that was kept, and the smallest above it that was not or could not be tried."""
    kept = max((one.rate_per_s for one in tried if one.verdict == "kept"), default=None)
    others = [one.rate_per_s for one in tried if one.verdict != "kept"]
    return kept, min((rate for rate in others if kept is None or rate > kept), default=None)


def decided(repeats: int, passed: int, missed: int) -> bool | None:
    """Kept by more than half of the repeats? None: not known yet."""
    if 2 * passed > repeats:
        return True
    return False if 2 * missed >= repeats else None


def verdict_of(found: Capacity) -> Verdict:
    """A rate that was kept is an answer, if only a lower bound; a miss is one that the lowest rate missed."""
    if found.kept_per_s is not None:
        return "passed"
    return "missed" if found.missed_per_s is not None else "not_valid"


def _try(rate: float, search: Search, measure: Measure, trail: _Trail) -> RateTried | None:
    """None when it was interrupted."""
    factor, runs, failed = rate / search.scenario_per_s, list[Results](), ""
    passed = missed = not_valid = 0
    while (kept := decided(search.repeats, passed, missed)) is None and not_valid < 2:
        results = measure(factor, trail.runs)
        trail.runs += 1
        if isinstance(results, Beyond):
            return _tried(rate, factor, "beyond_limits", runs, results.why)
        if isinstance(results, Failed):
            not_valid, failed = not_valid + 1, results.why
            continue
        trail.last = results
        if results.interrupted:
            trail.interrupted = True
            return None
        runs.append(results)
        passed += results.verdict == "passed"
        missed += results.verdict == "missed"
        not_valid += results.verdict == "not_valid"
    if kept is None:
        return _tried(rate, factor, "not_valid", runs, failed or " ".join(runs[-1].validity.reasons))
    if kept:
        trail.kept = runs[-1]
    return _tried(rate, factor, "kept" if kept else "missed", runs, "")


def _tried(rate: float, factor: float, verdict: KeptOrNot, runs: Sequence[Results], why: str) -> RateTried:
    first_miss = next((run for run in runs if run.verdict == "missed"), None)
    return RateTried(
        rate_per_s=rate,
        factor=factor,
        verdict=verdict,
        repeats=tuple(run.verdict for run in runs),
        offered_per_s=tuple(run.total.offered_per_s for run in runs),
        goodput_per_s=tuple(run.total.goodput_per_s for run in runs),
        ttft_p99_ms=tuple(run.total.ttft_ms.p99 if run.total.ttft_ms.count else None for run in runs),
        success_rate=tuple(run.total.success_rate for run in runs),
        missed=tuple(slo for slo in first_miss.slo if not slo.passed) if first_miss else (),
        why=why,
    )


def _found(search: Search, trail: _Trail) -> Capacity:
    kept, bound = bounds(trail.tried)
    at_bound = next((one for one in trail.tried if one.rate_per_s == bound and one.verdict != "kept"), None)
    missed = at_bound if at_bound is not None and at_bound.verdict == "missed" else None
    ended = _ended(kept, at_bound, trail.interrupted)
    return Capacity(
        ended=ended,
        kept_per_s=kept,
        missed_per_s=missed.rate_per_s if missed else None,
        missed=missed.missed if missed else (),
        scenario_per_s=search.scenario_per_s,
        within=search.within,
        sentence=_sentence(ended, kept, at_bound),
        tried=tuple(trail.tried),
    )


def _ended(kept: float | None, at_bound: RateTried | None, interrupted: bool) -> SearchEnd:
    if interrupted:
        return "interrupted"
    if at_bound is None:
        return "all_kept"
    if at_bound.verdict == "missed":
        return "none_kept" if kept is None else "found"
    if at_bound.verdict == "beyond_limits":
        return "limits"
    return "not_valid" if kept is None else "tool_saturated"


def _sentence(ended: SearchEnd, kept: float | None, at_bound: RateTried | None) -> str:
    largest = "no rate was kept" if kept is None else f"{_rate(kept)} requests/s kept the SLOs"
    least = "" if kept is None or (at_bound is not None and at_bound.verdict == "missed") else "at least "
    found = f"{least}{largest}; {_above(at_bound)}"
    return f"{found}; the search was interrupted" if ended == "interrupted" else found


def _above(at_bound: RateTried | None) -> str:
    """What came of the smallest rate that was not kept."""
    if at_bound is None:
        return "no higher one was tried"
    above = _rate(at_bound.rate_per_s)
    if at_bound.verdict == "missed":
        slos = (f"{place(slo)}: {measured(slo)} (limit {slo.limit:g})" for slo in at_bound.missed)
        return f"{above} missed {', '.join(slos)}"
    if at_bound.verdict == "beyond_limits":
        return f"{above} is beyond the scenario's limits: {at_bound.why}"
    return f"at {above} the tool, not the server, was the limit: {at_bound.why}"


def _rate(rate_per_s: float) -> str:
    return f"{rate_per_s:,.3g}" if rate_per_s < 100 else f"{rate_per_s:,.0f}"
