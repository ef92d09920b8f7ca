"""Results of load tests that look as real ones do, made up from a seed: no run is needed to draw them."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from cotenant_loadtests.results import (
    ErrorExample,
    Fairness,
    Group,
    ProcessLoad,
    Quantiles,
    Results,
    Sample,
    Series,
    ServerSide,
    SloResult,
    Step,
    Timeline,
    Validity,
)

TENANTS = ("search", "ads", "chat-team", "nightly")
MODELS = ("llama-8b", "qwen-14b", "embedder")
CURVE = (
    0.0,
    10.0,
    25.0,
    50.0,
    60.0,
    70.0,
    75.0,
    80.0,
    85.0,
    90.0,
    92.5,
    95.0,
    97.0,
    98.0,
    99.0,
    99.5,
    99.9,
    99.95,
    100.0,
)


def load_results(**changed: Any) -> Results:
    """A minute of four tenants and three models, one SLO of two missed; `changed` replaces fields."""
    return msgspec.structs.replace(made(TENANTS, MODELS, seconds=60, seed=7), **changed)


def short_results(**changed: Any) -> Results:
    """The same in 20 s: quick to draw and to look through."""
    return msgspec.structs.replace(made(TENANTS, MODELS, seconds=20, seed=5), **changed)


def passed_results(**changed: Any) -> Results:
    slo = (slo_result(value=312.0), slo_result("success_rate", "*", limit=0.9, value=0.984))
    return load_results(verdict="passed", slo=slo, **changed)


def slo_result(
    slo: str = "ttft_p99_ms",
    where: str = "ads",
    *,
    limit: float = 500.0,
    value: float | None = 812.0,
    among_failures: bool = False,
) -> SloResult:
    below = value is not None and (value <= limit if slo.endswith("_ms") else value >= limit)
    return SloResult(slo=slo, where=where, limit=limit, value=value, passed=below, among_failures=among_failures)


def error(
    outcome: str = "overloaded",
    status: int = 503,
    detail: str = "no capacity",
    *,
    tenant: str = "ads",
    model: str = "llama-8b",
    count: int = 12,
) -> ErrorExample:
    return ErrorExample(
        outcome=outcome, status=status, detail=detail, tenant=tenant, model=model, count=count, first_at_s=31.42
    )


def steps(stream: str = "climb") -> tuple[Step, ...]:
    good = (
        (5, 5.0, 80.0),
        (10, 9.9, 92.0),
        (20, 19.6, 130.0),
        (40, 38.1, 310.0),
        (60, 33.0, 2900.0),
        (80, 12.0, 9100.0),
    )
    return tuple(
        Step(
            stream=stream,
            from_s=i * 10.0,
            to_s=i * 10.0 + 10,
            rate_per_s=float(rate),
            good_per_s=value,
            success_rate=min(1.0, 0.5 + value / rate / 2),
            ttft_p99_ms=ttft,
        )
        for i, (rate, value, ttft) in enumerate(good)
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    if not values:
        return Quantiles(count=0)
    ordered = sorted(values)

    def at(percentile: float) -> float:
        return ordered[min(len(ordered) - 1, int(percentile / 100 * len(ordered)))]

    return Quantiles(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=at(50),
        p90=at(90),
        p95=at(95),
        p99=at(99),
        p999=at(99.9),
        max=ordered[-1],
        curve=tuple((p, at(p)) for p in CURVE),
    )


Sent = tuple[float, float, int, bool]
"""(scheduled at s, TTFT in ms, tokens, succeeded)."""


def group(tenant: str, model: str, sent: Sequence[Sent], *, seconds: float) -> Group:
    good = [one for one in sent if one[3]]
    tokens = sum(one[2] for one in good)
    per_s = 1 / seconds if seconds else 0.0
    gaps = [8 + (i * 7919 % 97) / 9 + (60 if i * 31 % 211 == 0 else 0) for i in range(min(4 * len(good), 4000))]
    return Group(
        tenant=tenant,
        model=model,
        scheduled=len(sent),
        succeeded=len(good),
        cancelled=0,
        failed=len(sent) - len(good),
        errors={"overloaded": len(sent) - len(good)} if len(sent) > len(good) else {},
        success_rate=len(good) / len(sent) if sent else 1.0,
        good=len(good) * 9 // 10,
        goodput_per_s=len(good) * 9 // 10 * per_s,
        offered_per_s=len(sent) * per_s,
        succeeded_per_s=len(good) * per_s,
        prompt_tokens=300 * len(sent),
        completion_tokens=tokens,
        completion_tokens_per_s=tokens * per_s,
        ttft_ms=quantiles([one[1] for one in good]),
        itl_ms=quantiles(gaps),
        tpot_ms=quantiles([9 + one[1] % 5 for one in good]),
        e2e_ms=quantiles([one[1] + one[2] * 11 for one in good]),
    )


def made(
    tenants: Sequence[str], models: Sequence[str], *, seconds: int, seed: int, rate_per_s: float = 12.0
) -> Results:
    draw = random.Random(seed)
    pairs = {
        (t, m): _traffic(draw, rate_per_s / (1 + i) / (1 + j), i, j, seconds)
        for i, t in enumerate(tenants)
        for j, m in enumerate(models)
    }
    pairs = {pair: sent for pair, sent in pairs.items() if sent}
    everything = [one for sent in pairs.values() for one in sent]
    of_tenant = {t: [one for (who, _), sent in pairs.items() if who == t for one in sent] for t in tenants}
    of_model = {m: [one for (_, which), sent in pairs.items() if which == m for one in sent] for m in models}
    return Results(
        cotenant_version="0.1.0",
        name="noisy-neighbour",
        about="One tenant sends bursts; do the others feel it?",
        started="2026-11-26T14:03:11Z",
        target="http://127.0.0.1:8080",
        seed=seed,
        plan_sha256="4be1c0ffee" * 6 + "0123",
        scenario={
            "name": "noisy-neighbour",
            "seed": seed,
            "duration_s": seconds,
            "warmup_s": 5,
            "cooldown_s": 3,
            "streams": [{"name": t, "tenant": t, "model": models[0]} for t in tenants],
            "slo": {"ttft_p99_ms": {"ads": 500}, "success_rate": 0.95},
        },
        machine="Linux 6.8, 16 cores, 64 GB, Python 3.12.4",
        duration_s=seconds + 2.4,
        window_from_s=5.0,
        window_to_s=seconds - 3.0,
        interrupted=False,
        verdict="missed",
        validity=_validity(len(everything), draw),
        slo=(
            slo_result(),
            slo_result("ttft_p99_ms", "search", value=214.0),
            slo_result("success_rate", "*", limit=0.95, value=0.984),
        ),
        total=group("*", "*", everything, seconds=seconds - 8),
        tenants=tuple(group(t, "*", sent, seconds=seconds - 8) for t, sent in of_tenant.items()),
        models=tuple(group("*", m, sent, seconds=seconds - 8) for m, sent in of_model.items()),
        groups=tuple(group(t, m, sent, seconds=seconds - 8) for (t, m), sent in pairs.items()),
        errors=(error(), error("timeout", 0, "not whole within 20 s", tenant=tenants[-1], model=models[-1], count=3)),
        timeline=Timeline(
            bin_s=1.0,
            series=(
                series_of("*", everything, seconds=seconds),
                *(series_of(t, sent, seconds=seconds) for t, sent in of_tenant.items()),
            ),
        ),
        steps=steps(),
        server=_server(seconds, draw, models),
        fairness=Fairness(
            jain=0.87,
            backlogged_s=seconds * 0.4,
            tokens={t: float(sum(one[2] for one in sent)) for t, sent in of_tenant.items()},
        ),
    )


def _traffic(draw: random.Random, rate: float, tenant: int, model: int, seconds: int) -> list[Sent]:
    """Busier tenants and models come first; the second tenant sends in bursts, and is slow and refused then."""
    sent: list[Sent] = []
    at = draw.expovariate(rate)
    while at < seconds:
        burst = tenant == 1 and at % 20 > 12
        ttft = draw.lognormvariate(4.1 + 0.25 * (model % 5), 0.4) * (6 if burst else 1)
        sent.append((at, ttft, draw.randint(20, 160), not (burst and draw.random() < 0.18)))
        at += draw.expovariate(rate * (5 if burst else 1))
    return sent


def series_of(tenant: str, sent: Sequence[Sent], *, seconds: int) -> Series:
    bins: list[list[Sent]] = [[] for _ in range(seconds)]
    flight, tokens = [0] * seconds, [0] * seconds
    for one in sent:
        bins[min(seconds - 1, int(one[0]))].append(one)
        last = one[0] + (one[1] + one[2] * 11) / 1000
        for second in range(int(one[0]), min(seconds, int(last) + 1)):
            flight[second] += one[0] <= second + 1 < last
            tokens[second] += one[2] // (int(last) - int(one[0]) + 1)
    known = [sorted(one[1] for one in there if one[3]) for there in bins]
    return Series(
        tenant=tenant,
        scheduled=tuple(len(there) for there in bins),
        succeeded=tuple(sum(one[3] for one in there) for there in bins),
        failed=tuple(sum(not one[3] for one in there) for there in bins),
        in_flight=tuple(flight),
        completion_tokens=tuple(tokens),
        ttft_p50_ms=tuple(values[len(values) // 2] if values else None for values in known),
        ttft_p99_ms=tuple(values[-1] if values else None for values in known),
    )


def _validity(requests: int, draw: random.Random) -> Validity:
    processes = tuple(
        ProcessLoad(
            process=i,
            cpu_share=0.34 + 0.05 * i,
            cpu_share_peak=0.61 + 0.1 * i,
            requests=requests // 2,
            max_rss_bytes=74_000_000 + i * 1_000_000,
        )
        for i in range(2)
    )
    lateness = quantiles([draw.lognormvariate(-1.2, 0.7) for _ in range(max(1, requests))])
    return Validity(valid=True, reasons=(), lateness_ms=lateness, processes=processes, processes_needed=2)


def _server(seconds: int, draw: random.Random, models: Sequence[str]) -> ServerSide:
    samples, total = [], 0.0
    for second in range(seconds):
        busy = 4 + 3 * (second % 20 > 12) + draw.random()
        total += busy * 90
        samples.append(
            Sample(
                at_s=second + 0.2,
                values={
                    f'cotenant_requests_in_flight{{model="{models[0]}"}}': float(int(busy)),
                    f'cotenant_tokens_total{{model="{models[0]}"}}': total,
                    f'rate(cotenant_tokens_total{{model="{models[0]}"}})': busy * 90,
                    "process_resident_memory_bytes": 4.1e8 + second * 2e5,
                },
            )
        )
    table = [
        Sample(at_s=second + 0.2, values={m: float(second > 6 * i) for i, m in enumerate(models[:5])})
        for second in range(seconds)
    ]
    return ServerSide(metrics=tuple(samples), table=tuple(table))
