"""The machine that a load test runs on, in one line; reads /proc and nothing else."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """`Intel(R) Xeon(R) …, 2 cores, 8 GB, Linux 6.1.0, Python 3.11.7`; no host name."""
    memory_gb = _number(Path("/proc/meminfo"), "MemTotal") / 1e6
    parts = [
        _line(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        f"{cores()} cores",
        f"{memory_gb:.0f} GB" if memory_gb else "",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(part for part in parts if part)


def _line(path: Path, name: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    return next(found, "")


def _number(path: Path, name: str) -> float:
    words = _line(path, name).split()
    return float(words[0]) if words and words[0].isdigit() else 0.0
