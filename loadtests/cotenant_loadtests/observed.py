"""What was seen on the server's side: which metrics are kept, rates of counters, engines per model. Pure."""

import math
from collections.abc import Sequence

from cotenant_loadtests.prometheus_text import Page
from cotenant_loadtests.results import Sample

KNOWN = (
    "cotenant_engines",
    "cotenant_gateway_resident_memory_bytes",
    "cotenant_queue_depth",
    "cotenant_rejections_total",
    "cotenant_requests_in_flight",
    "cotenant_requests_total",
    "cotenant_upstream_retries_total",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_utilization",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "vllm:generation_tokens_total",
    "vllm:gpu_cache_usage_perc",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
)
"""Beginnings of names that are kept where a scenario names none: of cotenant, vLLM, Triton, and of any process.
cotenant's tokens are not among them: a series or two for each tenant and model, and clients count the same."""
ENGINES = "cotenant_engines"
MOST_SERIES = 500
MOST_VALUES = 20_000
"""Of all samples together, some 2 MB in results.json; above it every second sample is dropped."""


def is_wanted(name: str, beginnings: Sequence[str]) -> bool:
    """Buckets of histograms and times of creation are many and say little over time: only by their full name."""
    if name.endswith(("_bucket", "_created")):
        return name in beginnings
    return name.startswith(tuple(beginnings))


def values_of(page: Page, beginnings: Sequence[str]) -> dict[str, float]:
    """Series → value; those that are not numbers (NaN, infinite) are left out."""
    return {
        sample.series: sample.value
        for sample in page.samples
        if is_wanted(sample.name, beginnings) and math.isfinite(sample.value)
    }


def engines_of(page: Page) -> dict[str, float] | None:
    """Model → engines that its requests may go to now; None where the page is not that of a cotenant gateway."""
    engines = {
        sample.label("model") or "": sample.value
        for sample in page.samples
        if sample.name == ENGINES and math.isfinite(sample.value)
    }
    return engines if ENGINES in page.types else None


def with_rates(samples: Sequence[Sample], counters: set[str]) -> tuple[Sample, ...]:
    """Beside each counter its `rate(…)` per second since the sample before; none where it began anew."""
    return tuple(
        Sample(at_s=now.at_s, values=now.values | (_rates(samples[place - 1], now, counters) if place else {}))
        for place, now in enumerate(samples)
    )


def _rates(before: Sample, now: Sample, counters: set[str]) -> dict[str, float]:
    seconds = now.at_s - before.at_s
    return {
        f"rate({series})": (value - before.values[series]) / seconds
        for series, value in now.values.items()
        if series in counters and seconds > 0 and value >= before.values.get(series, math.inf)
    }


def every_second(samples: Sequence[Sample]) -> list[Sample]:
    """Half of them: the first, the third, …"""
    return list(samples[::2])
