"""What `compare`, `find-capacity`, `fairness`, `coldstart` and `soak` may have found, as `extras` of results."""

from typing import Any

import msgspec

from cotenant_loadtests.extras import (
    Capacity,
    ColdStarts,
    Compared,
    Comparison,
    Condition,
    Drift,
    FairnessFound,
    Interval,
    LightTenant,
    ModelWakes,
    Phase,
    RateTried,
    Soak,
    SoakSegment,
    TenantService,
    Wake,
)
from cotenant_loadtests.results import Quantiles
from tests.builders.drawn_results import quantiles, slo_result


def every_extra() -> dict[str, Any]:
    """By the commands' names, as in results.json."""
    found = {
        "compare": comparison(),
        "find-capacity": capacity(),
        "fairness": fairness(),
        "coldstart": cold_starts(),
        "soak": soak(),
    }
    return {name: msgspec.to_builtins(one) for name, one in found.items()}


def nothing_found() -> dict[str, Any]:
    """Each command as it was ended before its first run was whole."""
    found = {
        "compare": msgspec.structs.replace(comparison(), rounds=0, order=(), metrics=(), conditions=()),
        "find-capacity": msgspec.structs.replace(
            capacity(), ended="interrupted", kept_per_s=None, missed_per_s=None, missed=(), tried=()
        ),
        "fairness": msgspec.structs.replace(fairness(), jain=None, backlogged_s=0.0, tenants=(), light=()),
        "coldstart": msgspec.structs.replace(cold_starts(), models=(), wakes=()),
        "soak": msgspec.structs.replace(soak(), segments=(), drifts=(), interrupted=True),
    }
    return {name: msgspec.to_builtins(one) for name, one in found.items()}


def compared(
    metric: str, ratio: float | None, low: float = 0.0, high: float = 0.0, difference: Any = "none_shown"
) -> Compared:
    a = 100.0
    return Compared(
        metric=metric,
        lower_is_better=metric.endswith("_ms"),
        a=a,
        b=None if ratio is None else a * ratio,
        ratio=ratio,
        interval=Interval(low=low, high=high) if low else None,
        difference=difference,
        rounds_a=(99.0, 100.0, 101.0),
        rounds_b=() if ratio is None else (a * ratio,) * 3,
    )


def comparison() -> Comparison:
    return Comparison(
        a="http://127.0.0.1:8080",
        b="http://127.0.0.1:8081",
        rounds=8,
        order=("ab", "ba") * 4,
        metrics=(
            compared("ttft_p50_ms", 0.88, 0.85, 0.91, "lower"),
            compared("ttft_p99_ms", 1.02, 0.93, 1.11),
            compared("tpot_p50_ms", 1.3, 1.21, 1.42, "higher"),
            compared("tokens_per_s", 1.09, 1.05, 1.12, "higher"),
            compared("success_rate", 1.0, 1.0, 1.0),
            compared("itl_p99_ms", 0.97, difference="too_few_rounds"),
            compared("e2e_p99_ms", None, difference="not_measured"),
        ),
        not_valid=("Round 3 of A: p99 lateness is 7.2 ms, above 5 ms.",),
        conditions=(
            Condition(text="ttft_p99_ms > 1.2", failed=False),
            Condition(text="tpot_p50_ms > 1.1", failed=True),
        ),
    )


def tried(
    rate: float, verdict: Any, good: tuple[float, ...], ttft: tuple[float | None, ...], why: str = ""
) -> RateTried:
    return RateTried(
        rate_per_s=rate,
        factor=rate / 10,
        verdict=verdict,
        repeats=("passed",) * len(good),
        offered_per_s=good,
        goodput_per_s=good,
        ttft_p99_ms=ttft,
        success_rate=(0.99,) * len(good),
        missed=(slo_result(),) if verdict == "missed" else (),
        why=why,
    )


def capacity() -> Capacity:
    return Capacity(
        ended="found",
        kept_per_s=36.0,
        missed_per_s=38.0,
        missed=(slo_result(),),
        scenario_per_s=10.0,
        within=0.05,
        sentence="36 /s keep the SLOs, 38 /s do not: the capacity is between them.",
        tried=(
            tried(10.0, "kept", (9.9, 9.7), (102.0, 111.0)),
            tried(80.0, "missed", (31.0,), (4100.0,)),
            tried(320.0, "not_valid", (12.0,), (None,), "p99 lateness is 40 ms"),
            tried(40.0, "missed", (38.0, 37.2), (498.0, 610.0)),
            tried(36.0, "kept", (35.7, 35.9), (402.0, 440.0)),
            tried(640.0, "beyond_limits", (), (), "limits.rate_per_s: 2,000"),
        ),
    )


def fairness() -> FairnessFound:
    def tenant(name: str, light: bool, factor: int) -> TenantService:
        tokens = tuple(factor * (3 + i * 7 % 5) for i in range(60))
        return TenantService(
            tenant=name, light=light, offered_tokens=factor * 400, offered_share=0.25, completion_tokens=tokens
        )

    def light(name: str, together: float | None) -> LightTenant:
        return LightTenant(
            tenant=name,
            requests=64,
            together_ttft_p50_ms=together,
            together_ttft_p99_ms=together,
            alone_ttft_p50_ms=70.0,
            alone_ttft_p99_ms=95.0,
            ratio_p50=None if together is None else together / 70,
            ratio_p99=None if together is None else together / 95,
            together_success_rate=0.98,
            alone_success_rate=1.0,
        )

    return FairnessFound(
        jain=0.93,
        backlogged_s=41.0,
        bin_s=1.0,
        tenants=(tenant("ads", False, 90), tenant("search", True, 20), tenant("nightly", True, 11)),
        light=(light("search", 104.0), light("nightly", 230.0), light("chat-team", None)),
        not_valid=(),
    )


def phases(factor: float) -> tuple[Phase, ...]:
    found, now = [], 0.0
    for name, long in (("place", 40.0), ("start", 2100.0), ("load", 5200.0), ("warm", 900.0), ("first token", 160.0)):
        found.append(Phase(name=name, from_ms=now, to_ms=now + long * factor))
        now += long * factor
    return tuple(found)


def cold_starts() -> ColdStarts:
    factors = {"llama-8b": 1.0, "qwen-14b": 1.7, "embedder": 0.3}
    wakes = [
        Wake(
            tenant="search",
            model=model,
            at_unix_s=1.7e9 + i * 60,
            outcome="ok",
            status=200,
            first_token_ms=8400.0 * factor * (1 + i / 30),
            phases=phases(factor * (1 + i / 30)),
        )
        for i in range(4)
        for model, factor in factors.items()
    ]
    failed = Wake(
        tenant="search",
        model="llama-8b",
        at_unix_s=1.7e9,
        outcome="timeout",
        status=0,
        first_token_ms=None,
        phases=(),
    )
    return ColdStarts(
        cold_by="engines",
        idle_s=None,
        phases_by="server",
        models=(
            *(
                ModelWakes(
                    model=model, wakes=4, failed=0, first_token_ms=quantiles([8400.0 * f, 8800 * f]), phases=phases(f)
                )
                for model, f in factors.items()
            ),
            ModelWakes(model="never", wakes=1, failed=1, first_token_ms=Quantiles(count=0), phases=()),
        ),
        wakes=(*wakes, failed),
        not_valid=(),
    )


def soak() -> Soak:
    segments = tuple(
        SoakSegment(
            from_s=i * 600.0,
            to_s=i * 600.0 + 590,
            requests=6000 + i,
            failed=i,
            success_rate=1 - i / 6000,
            ttft_p50_ms=80.0 + i % 3,
            ttft_p99_ms=210.0 + 4 * i if i != 5 else None,
            e2e_p99_ms=1900.0 + i % 4,
            completion_tokens_per_s=6100.0 - i,
            server_rss_bytes=4.1e8 + i * 2e6,
            tool_rss_bytes=91_000_000 + i % 2,
            verdict="not_valid" if i == 7 else "passed",
            missed=(),
            why_not_valid=("p99 lateness is 6.1 ms, above 5 ms.",) if i == 7 else (),
        )
        for i in range(18)
    )
    return Soak(
        hours=3.0,
        ran_s=10_790.0,
        segments=segments,
        drifts=(
            Drift(
                metric="ttft_p99_ms",
                per_hour=24.0,
                interval=Interval(low=22.0, high=26.0),
                begin=210.0,
                trend="rises",
            ),
            Drift(
                metric="server_rss_bytes",
                per_hour=1.2e7,
                interval=Interval(low=1e7, high=1.4e7),
                begin=4.1e8,
                trend="rises",
            ),
            Drift(
                metric="ttft_p50_ms",
                per_hour=0.1,
                interval=Interval(low=-0.2, high=0.4),
                begin=80.0,
                trend="none_shown",
            ),
            Drift(metric="tool_rss_bytes", per_hour=None, interval=None, begin=None, trend="too_few_segments"),
        ),
        interrupted=False,
    )
