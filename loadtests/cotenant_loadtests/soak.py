"""`soak`: a scenario again and again for hours, and whether latency or memory drifts; pure.

Each segment is one pass through the scenario with a seed of its own, planned when it begins: what is kept grows by a
line for each segment, not by requests. Between segments the last answers are waited for: the load pauses there.
"""

import math
from collections.abc import Callable, Sequence

from cotenant_loadtests.bootstrap import slope, slope_interval
from cotenant_loadtests.extras import Drift, Interval, Soak, SoakSegment, Trend
from cotenant_loadtests.gate import value_of
from cotenant_loadtests.results import Results, ServerSide, Verdict
from cotenant_loadtests.run_output import Failed

Measure = Callable[[int], tuple[Results | Failed, int]]
"""Number of the segment from 0 → its results, and the memory of the tool's processes in bytes. The first has some."""
RSS = ("cotenant_gateway_resident_memory_bytes", "process_resident_memory_bytes")
"""A cotenant gateway tells that of all its processes; other servers have the usual name, for each that is scraped."""
MOST_NOT_VALID = 0.1
"""A larger share of segments that are not valid, and the whole is not: in hours, one late second is no surprise."""
DRIFTS: dict[str, Callable[[SoakSegment], float | None]] = {
    "ttft_p50_ms": lambda segment: segment.ttft_p50_ms,
    "ttft_p99_ms": lambda segment: segment.ttft_p99_ms,
    "e2e_p99_ms": lambda segment: segment.e2e_p99_ms,
    "server_rss_bytes": lambda segment: segment.server_rss_bytes,
    "tool_rss_bytes": lambda segment: float(segment.tool_rss_bytes),
}


def soak(
    hours: float,
    segment_s: float,
    measure: Measure,
    now_s: Callable[[], float],
    pause: Callable[[float], bool],
) -> tuple[Soak, Results]:
    """What was found, and the results of the last whole segment, or of the first if there is none.

    `segment_s` is the scenario's time: a segment begins while there is time for it, and the first in any case. One
    that fails is not valid, and what is left of its time goes by: `pause` waits so many seconds, True is a stop.
    """
    began_s, segments, shown, interrupted = now_s(), list[SoakSegment](), list[Results](), False
    while not interrupted:
        from_s = now_s() - began_s
        results, rss_bytes = measure(len(segments))
        if isinstance(results, Failed):
            interrupted = pause(max(0.0, from_s + segment_s - (now_s() - began_s)))
            segments.append(failed_segment(results, from_s, now_s() - began_s, rss_bytes))
        else:
            shown = [results] if not results.interrupted else shown or [results]
            interrupted = results.interrupted
            if not interrupted:
                segments.append(segment_of(results, from_s, now_s() - began_s, rss_bytes))
        if now_s() - began_s + segment_s > hours * 3600:
            break
    found = Soak(
        hours=hours,
        ran_s=now_s() - began_s,
        segments=tuple(segments),
        drifts=drifts_of(segments),
        interrupted=interrupted,
    )
    return found, shown[0]


def segment_count(hours: float, segment_s: float) -> int:
    """At most; each is followed by a pause."""
    return max(1, math.floor(hours * 3600 / segment_s + 1e-9))


def drifts_of(segments: Sequence[SoakSegment]) -> tuple[Drift, ...]:
    """Over the valid segments, each at its middle."""
    valid = [segment for segment in segments if segment.verdict != "not_valid"]
    return tuple(_drift(metric, valid, of) for metric, of in DRIFTS.items())


def verdict_of(found: Soak) -> Verdict:
    """Missed: a segment missed an SLO. Not valid: more than one segment in ten was not, or there is none."""
    not_valid = sum(segment.verdict == "not_valid" for segment in found.segments)
    if not found.segments or not_valid > MOST_NOT_VALID * len(found.segments):
        return "not_valid"
    return "missed" if any(segment.verdict == "missed" for segment in found.segments) else "passed"


def why_not_valid(found: Soak) -> list[str]:
    """A sentence for each segment that was not."""
    return [
        f"Segment {place}: {why}"
        for place, one in enumerate(found.segments, start=1)
        if one.verdict == "not_valid"
        for why in one.why_not_valid
    ]


def segment_of(results: Results, from_s: float, to_s: float, rss_bytes: int) -> SoakSegment:
    total = results.total
    return SoakSegment(
        from_s=from_s,
        to_s=to_s,
        requests=total.scheduled,
        failed=total.failed,
        success_rate=total.success_rate,
        ttft_p50_ms=value_of("ttft_p50_ms", total),
        ttft_p99_ms=value_of("ttft_p99_ms", total),
        e2e_p99_ms=value_of("e2e_p99_ms", total),
        completion_tokens_per_s=total.completion_tokens_per_s,
        server_rss_bytes=server_rss_bytes(results.server),
        tool_rss_bytes=rss_bytes,
        verdict=results.verdict,
        missed=tuple(slo for slo in results.slo if not slo.passed),
        why_not_valid=results.validity.reasons,
    )


def failed_segment(failed: Failed, from_s: float, to_s: float, rss_bytes: int) -> SoakSegment:
    return SoakSegment(
        from_s=from_s,
        to_s=to_s,
        requests=0,
        failed=0,
        success_rate=1.0,
        ttft_p50_ms=None,
        ttft_p99_ms=None,
        e2e_p99_ms=None,
        completion_tokens_per_s=0.0,
        server_rss_bytes=None,
        tool_rss_bytes=rss_bytes,
        verdict="not_valid",
        missed=(),
        why_not_valid=(failed.why,),
    )


def server_rss_bytes(server: ServerSide) -> float | None:
    """Of all its processes that the last sample with any names; the first name of RSS that is there."""
    for sample in reversed(server.metrics):
        for name in RSS:
            values = [value for series, value in sample.values.items() if series.partition("{")[0] == name]
            if values:
                return sum(values)
    return None


def _drift(metric: str, segments: Sequence[SoakSegment], of: Callable[[SoakSegment], float | None]) -> Drift:
    points = [((one.from_s + one.to_s) / 7200, value) for one in segments if (value := of(one)) is not None]
    hours, values = [at for at, _ in points], [value for _, value in points]
    fitted = slope(hours, values) if points else None
    interval = slope_interval(hours, values) if fitted else None
    return Drift(
        metric=metric,
        per_hour=fitted[0] if fitted else None,
        interval=interval,
        begin=fitted[1] if fitted else None,
        trend=trend(bool(points), interval),
    )


def trend(measured: bool, interval: Interval | None) -> Trend:
    if not measured:
        return "not_measured"
    if interval is None:
        return "too_few_segments"
    if interval.low > 0:
        return "rises"
    return "falls" if interval.high < 0 else "none_shown"
