"""How an engine's weights come to it: bytes that are fetched and read, how fast, and from where."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cotenant_serving.contract import Fetch, WeightsLoad

WINDOW_S = 10.0
"""The rate of a fetch is that of so many seconds: a hub's own pauses do not show, one that stalls soon does."""
_OWN_IO = Path("/proc/self/io")


@dataclass(frozen=True, slots=True)
class WeightsRead:
    """Weights files that were read into the device's memory."""

    read_bytes: int
    read_s: float
    read_from: Literal["disk", "memory"] = "disk"


@dataclass(frozen=True, slots=True)
class Began:
    """The moment before weights are read."""

    at_s: float
    storage_bytes: int | None
    """That this process has had read from disks until then; None where the kernel does not tell."""


def begin_reading(clock: Callable[[], float] = time.monotonic) -> Began:
    return Began(clock(), _from_storage())


def read_since(began: Began, read_bytes: int, clock: Callable[[], float] = time.monotonic) -> WeightsRead:
    """Of that many bytes; `memory` when less than half of them came from a disk."""
    now_bytes = _from_storage()
    known = began.storage_bytes is not None and now_bytes is not None
    warm = known and (now_bytes or 0) - (began.storage_bytes or 0) < read_bytes / 2
    return WeightsRead(read_bytes, clock() - began.at_s, "memory" if warm else "disk")


class WeightsMeter:
    """Owns the numbers of one load. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        """(time, bytes done), as far back as the window goes, and one before."""
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)
        self._total_bytes = 0
        self._fetching = False
        self._read: WeightsRead | None = None

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """So much of the model's files is on this node now."""
        now_s = self._clock()
        self._last, self._total_bytes, self._fetching = (now_s, done_bytes), total_bytes, True
        self._first = self._first or self._last
        self._samples.append(self._last)
        self._forget(now_s)

    def fetch_ended(self) -> None:
        self._fetching = False

    def was_read(self, read: WeightsRead) -> None:
        self._read = read

    def fetch(self) -> Fetch | None:
        """While one is under way, and not all is there."""
        _, done_bytes = self._last
        if not self._fetching or done_bytes >= self._total_bytes:
            return None
        return Fetch(done_bytes=done_bytes, total_bytes=self._total_bytes, bytes_per_s=round(self._rate(), 1))

    def load(self) -> WeightsLoad | None:
        """None until anything was fetched or read."""
        (first_s, first_bytes), (last_s, last_bytes) = self._first or self._last, self._last
        fetched = max(0, last_bytes - first_bytes)
        if not fetched and self._read is None:
            return None
        read = self._read or WeightsRead(0, 0.0)
        return WeightsLoad(
            fetched_bytes=fetched,
            fetched_s=round(last_s - first_s, 3) if fetched else 0.0,
            read_bytes=read.read_bytes,
            read_s=round(read.read_s, 3),
            read_from=read.read_from,
        )

    def _rate(self) -> float:
        now_s = self._clock()
        self._forget(now_s)
        since_s, before_bytes = self._samples[0]
        passed_s = now_s - since_s
        return max(0, self._last[1] - before_bytes) / passed_s if passed_s > 0 else 0.0

    def _forget(self, now_s: float) -> None:
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()


def _from_storage() -> int | None:
    """Bytes that this process has had fetched from disks; what the page cache had is not among them."""
    try:
        lines = _OWN_IO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), None)
