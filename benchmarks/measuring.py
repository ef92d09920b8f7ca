"""What all benchmarks share: CPU time of processes, medians, and the report that ends in one line of JSON."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence

import psutil


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, of these processes and their threads so far. Children do not count."""
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def machine() -> str:
    """One line about what this runs on."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    memory_gib = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{names[0] if names else model}, {cores} cores, {memory_gib:.0f} GiB, load {load:.1f} at the start"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def finish(ratios: Mapping[str, float]) -> None:
    """The last line of every benchmark: one JSON object."""
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}), flush=True)
