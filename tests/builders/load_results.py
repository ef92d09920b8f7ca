"""Results of a load test as they might be, without a run. Shares no state; every figure can be said."""

from typing import Any

import msgspec

from cotenant_loadtests.results import (
    Fairness,
    Group,
    Quantiles,
    Results,
    ServerSide,
    SloResult,
    Timeline,
    Validity,
    Verdict,
)


def quantiles(p50: float | None, p99: float | None = None, *, count: int = 100) -> Quantiles:
    if p50 is None:
        return Quantiles(count=0)
    high = p50 if p99 is None else p99
    return Quantiles(count=count, mean=p50, p50=p50, p90=high, p95=high, p99=high, p999=high, max=high)


def group(tenant: str = "*", model: str = "*", **figures: Any) -> Group:
    empty = {name: Quantiles(count=0) for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")}
    plain = {
        "scheduled": 100,
        "succeeded": 100,
        "cancelled": 0,
        "failed": 0,
        "errors": {},
        "success_rate": 1.0,
        "good": 100,
        "goodput_per_s": 10.0,
        "offered_per_s": 10.0,
        "succeeded_per_s": 10.0,
        "prompt_tokens": 1000,
        "completion_tokens": 1000,
        "completion_tokens_per_s": 100.0,
    }
    return msgspec.convert(empty | plain | figures | {"tenant": tenant, "model": model}, Group)


def missed_slo(slo: str = "ttft_p99_ms", value: float = 900.0, limit: float = 500.0) -> SloResult:
    return SloResult(slo=slo, where="*", limit=limit, value=value, passed=False)


def validity(*reasons: str) -> Validity:
    return Validity(
        valid=not reasons, reasons=reasons, lateness_ms=quantiles(0.1, 0.2), processes=(), processes_needed=1
    )


def results(verdict: Verdict = "passed", *, total: Group | None = None, **fields: Any) -> Results:
    """Valid and passed unless said otherwise; a missed one has missed `ttft_p99_ms`."""
    return Results(
        **{
            "cotenant_version": "0",
            "name": "made",
            "about": "",
            "started": "2026-11-26T10:00:00Z",
            "target": "http://127.0.0.1:8080",
            "seed": 1,
            "plan_sha256": "0" * 64,
            "scenario": {},
            "machine": "",
            "duration_s": 10.0,
            "window_from_s": 0.0,
            "window_to_s": 10.0,
            "interrupted": False,
            "verdict": verdict,
            "validity": validity(*(["too late."] if verdict == "not_valid" else [])),
            "slo": (missed_slo(),) if verdict == "missed" else (),
            "total": total or group(),
            "tenants": (),
            "models": (),
            "groups": (),
            "errors": (),
            "timeline": Timeline(bin_s=1.0, series=()),
            "steps": (),
            "fairness": Fairness(jain=None, backlogged_s=0.0, tokens={}),
            "server": ServerSide(),
        }
        | fields
    )
