"""Load tests that went oddly: not valid, interrupted, crowded, hostile, empty, a single request, all failed."""

import functools

import msgspec

from cotenant_loadtests.results import Fairness, Quantiles, Results, Sample, Series, ServerSide, Timeline, Validity
from tests.builders.drawn_results import error, group, load_results, made, series_of, slo_result, steps

HOSTILE = (
    "\u202e</title><script src=//evil.example/x.js>alert(1)</script><img src=x onerror=alert(2)>\x00\ud800&amp;\"'"
)


def not_valid_results() -> Results:
    results = load_results()
    reason = "p99 lateness is 18.4 ms, above 5 ms: the worker processes could not keep up. Use processes: 3."
    return msgspec.structs.replace(
        results,
        verdict="not_valid",
        validity=msgspec.structs.replace(results.validity, valid=False, reasons=(reason,), processes_needed=3),
    )


def interrupted_results() -> Results:
    return load_results(interrupted=True, duration_s=24.2, window_to_s=24.2)


@functools.cache
def crowded_results() -> Results:
    """50 tenants and 100 models, for ten minutes."""
    tenants = tuple(f"tenant-{i:02}" for i in range(1, 51))
    models = tuple(f"model-{i:03}" for i in range(1, 101))
    return made(tenants, models, seconds=600, seed=11, rate_per_s=2.0)


def hostile_results() -> Results:
    """Every text that a scenario or a server chooses tries to be markup."""
    results = made((HOSTILE, "search"), (HOSTILE, "m"), seconds=20, seed=3)
    scenario = {"name": HOSTILE, HOSTILE: [HOSTILE], "duration_s": 20}
    server = ServerSide(
        metrics=tuple(Sample(at_s=float(i), values={f'x{{model="{HOSTILE}"}}': float(i)}) for i in range(5)),
        table=tuple(Sample(at_s=float(i), values={HOSTILE: 1.0}) for i in range(5)),
        problems=(HOSTILE,),
    )
    return msgspec.structs.replace(
        results,
        name=HOSTILE,
        about=HOSTILE,
        target=HOSTILE,
        machine=HOSTILE,
        started=HOSTILE,
        scenario=scenario,
        server=server,
        slo=(slo_result(HOSTILE, HOSTILE),),
        steps=steps(HOSTILE),
        fairness=Fairness(jain=0.5, backlogged_s=3.0, tokens={HOSTILE: 5.0, "b": 2.0}),
        errors=(error(detail=HOSTILE, tenant=HOSTILE, model=HOSTILE),),
        validity=msgspec.structs.replace(results.validity, valid=False, reasons=(HOSTILE,)),
        verdict="not_valid",
    )


def empty_results() -> Results:
    """A run that was ended before it sent anything."""
    nothing = group("*", "*", [], seconds=0.0)
    series = Series(
        tenant="*",
        scheduled=(),
        succeeded=(),
        failed=(),
        in_flight=(),
        completion_tokens=(),
        ttft_p50_ms=(),
        ttft_p99_ms=(),
    )
    return load_results(
        total=nothing,
        tenants=(),
        models=(),
        groups=(),
        errors=(),
        timeline=Timeline(bin_s=1.0, series=(series,)),
        steps=(),
        fairness=Fairness(jain=None, backlogged_s=0.0, tokens={}),
        server=ServerSide(),
        duration_s=0.0,
        window_from_s=0.0,
        window_to_s=0.0,
        interrupted=True,
        slo=(slo_result(value=None),),
        validity=Validity(valid=True, reasons=(), lateness_ms=Quantiles(count=0), processes=(), processes_needed=1),
    )


def one_request_results() -> Results:
    one = [(1.0, 40.0, 5, True)]
    groups = (group("solo", "llama-8b", one, seconds=10.0),)
    timeline = Timeline(bin_s=1.0, series=tuple(series_of(name, one, seconds=10) for name in ("*", "solo")))
    return load_results(
        total=group("*", "*", one, seconds=10.0),
        tenants=(group("solo", "*", one, seconds=10.0),),
        models=(group("*", "llama-8b", one, seconds=10.0),),
        groups=groups,
        errors=(),
        timeline=timeline,
        steps=(),
        fairness=Fairness(jain=None, backlogged_s=0.0, tokens={}),
        server=ServerSide(),
        slo=(),
        verdict="passed",
    )


def all_failed_results() -> Results:
    """The target refused every connection."""
    sent = [(i * 0.5, 0.0, 0, False) for i in range(40)]
    return load_results(
        total=group("*", "*", sent, seconds=20.0),
        tenants=(group("search", "*", sent, seconds=20.0),),
        models=(group("*", "llama-8b", sent, seconds=20.0),),
        groups=(group("search", "llama-8b", sent, seconds=20.0),),
        errors=(error("connect", 0, "connection refused", count=40),),
        steps=(),
        server=ServerSide(),
        timeline=Timeline(bin_s=1.0, series=tuple(series_of(name, sent, seconds=20) for name in ("*", "search"))),
        fairness=Fairness(jain=None, backlogged_s=0.0, tokens={}),
        slo=(
            slo_result("ttft_p99_ms", "search", value=None, among_failures=True),
            slo_result("success_rate", "*", limit=0.99, value=0.0),
        ),
    )
