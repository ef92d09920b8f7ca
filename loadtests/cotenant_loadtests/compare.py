"""`compare A B`: rounds of A and B in turn, and for each figure the ratio B / A with its interval; pure.

    A B, B A, A B, …     what drifts (heat, other load) meets both alike; both of a round have the same seed

A scenario's plan is drawn anew for each round, the same for A and B where they are one scenario at two addresses.
"""

from collections.abc import Callable, Sequence
from statistics import median

from cotenant_loadtests.extras import Compared, Comparison, Condition, Difference, Interval, reasons
from cotenant_loadtests.gate import bound, value_of
from cotenant_loadtests.paired import FEWEST_ROUNDS, LEVEL, ratio, ratio_interval
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results, SloResult, Verdict
from cotenant_loadtests.run_output import Failed

Measure = Callable[[str, int], Results | Failed]
"""(`a` or `b`, number of the round from 0) → its results. The first has some."""
Limit = tuple[str, str, float]
"""Metric, `<` or `>`, limit of the ratio."""


FIGURES = (
    "ttft_p50_ms",
    "ttft_p99_ms",
    "itl_p50_ms",
    "itl_p99_ms",
    "tpot_p50_ms",
    "tpot_p99_ms",
    "e2e_p50_ms",
    "e2e_p99_ms",
    "tokens_per_s",
    "success_rate",
    "goodput_per_s",
)
"""As SLOs are called: gate.py."""


def compare(
    names: tuple[str, str], rounds: int, measure: Measure, conditions: Sequence[Limit] = ()
) -> tuple[Comparison, Results]:
    """What was found, and the last results of B (of A where there are none).

    A run that is interrupted or fails ends it early; one that fails makes it not valid.
    """
    order, pairs, last, failed = list[str](), list[dict[str, Results]](), dict[str, Results](), list[str]()
    for number in range(rounds):
        turn = "ba" if number % 2 else "ab"
        pair: dict[str, Results] = {}
        for side in turn:
            results = measure(side, number)
            if isinstance(results, Failed):
                failed.append(f"round {number + 1}, {side.upper()}: {results.why}")
                break
            last[side] = results
            if results.interrupted:
                break
            pair[side] = results
        if len(pair) < 2:
            break
        pairs.append(pair)
        order.append(turn)
    found = judge(names, order, pairs, conditions, failed)
    return found, (pairs[-1] if pairs else last).get("b") or last["a"]


def judge(
    names: tuple[str, str],
    order: Sequence[str],
    pairs: Sequence[dict[str, Results]],
    conditions: Sequence[Limit] = (),
    failed: Sequence[str] = (),
) -> Comparison:
    """`pairs`: of each whole round, the results of `a` and of `b`. `failed`: a sentence for each run that failed."""
    rounds = {metric: (_values(metric, "a", pairs), _values(metric, "b", pairs)) for metric in FIGURES}
    figures = sum(_measured(*both) for both in rounds.values())
    metrics = tuple(_compared(metric, *both, figures) for metric, both in rounds.items())
    runs = {
        f"round {number}, {side.upper()}": pair[side] for number, pair in enumerate(pairs, start=1) for side in "ab"
    }
    by_name = {metric.metric: metric for metric in metrics}
    return Comparison(
        a=names[0],
        b=names[1],
        rounds=len(pairs),
        order=tuple(order),
        metrics=metrics,
        not_valid=(*reasons(runs), *failed),
        conditions=tuple(
            Condition(text=f"{metric} {sign} {limit:g}", failed=_beyond(by_name[metric].interval, sign, limit))
            for metric, sign, limit in conditions
        ),
    )


def parse_condition(text: str) -> Limit:
    """`ttft_p99_ms > 1.1`. Raises RefusedError."""
    words = text.split()
    if len(words) == 3 and words[0] in FIGURES and words[1] in ("<", ">"):
        try:
            limit = float(words[2])
        except ValueError:
            limit = -1.0
        if 0 < limit < float("inf"):
            return words[0], words[1], limit
    raise RefusedError(
        f"--fail-if {text!r}: say METRIC > RATIO or METRIC < RATIO, such as 'ttft_p99_ms > 1.1'; "
        f"metrics: {', '.join(FIGURES)}"
    )


def slo_of(found: Comparison, conditions: Sequence[Limit]) -> tuple[SloResult, ...]:
    """The conditions as the gate has its limits."""
    ratios = {metric.metric: metric.ratio for metric in found.metrics}
    return tuple(
        SloResult(slo=metric, where="B / A", limit=limit, value=ratios[metric], passed=not condition.failed)
        for (metric, _, limit), condition in zip(conditions, found.conditions, strict=True)
    )


def verdict_of(found: Comparison) -> Verdict:
    if found.not_valid or not found.rounds:
        return "not_valid"
    return "missed" if any(condition.failed for condition in found.conditions) else "passed"


_Rounds = tuple[float | None, ...]


def _values(metric: str, side: str, pairs: Sequence[dict[str, Results]]) -> _Rounds:
    return tuple(value_of(metric, pair[side].total) for pair in pairs)


def _measured(a: _Rounds, b: _Rounds) -> bool:
    """In each round of both, and there is something to be a ratio to."""
    return bool(a) and None not in (*a, *b) and min(value or 0.0 for value in a) > 0


def _compared(metric: str, a: _Rounds, b: _Rounds, figures: int) -> Compared:
    """`figures`: how many are measured and looked at together."""
    before, after = [value for value in a if value is not None], [value for value in b if value is not None]
    measured = _measured(a, b)
    interval = ratio_interval(before, after, figures) if measured else None
    whole = bool(a) and len(before) == len(after) == len(a)
    return Compared(
        metric=metric,
        lower_is_better=bound(metric) == "at most",
        a=median(before) if whole else None,
        b=median(after) if whole else None,
        ratio=ratio(before, after) if measured else None,
        interval=interval,
        difference=difference(measured, interval),
        rounds_a=a,
        rounds_b=b,
    )


def difference(measured: bool, interval: Interval | None) -> Difference:
    if not measured:
        return "not_measured"
    if interval is None:
        return "too_few_rounds"
    if interval.low > 1:
        return "higher"
    return "lower" if interval.high < 1 else "none_shown"


def too_few(rounds: int) -> str | None:
    """A sentence where so many rounds can show no difference."""
    if rounds >= FEWEST_ROUNDS:
        return None
    return (
        f"{'1 round is' if rounds == 1 else f'{rounds} rounds are'} too few for an interval of {LEVEL:.0%}, so that "
        "nothing is shown about a difference; "
        f"take --rounds {FEWEST_ROUNDS} or more"
    ).replace("95%", "95 %")


def _beyond(interval: Interval | None, sign: str, limit: float) -> bool:
    """The whole interval: a failure is shown, not guessed."""
    if interval is None:
        return False
    return interval.low > limit if sign == ">" else interval.high < limit
