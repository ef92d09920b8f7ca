"""What loads have taken, and what the next one will take. Pure.

A load is a fetch, a read, and the rest: the start of the process, imports, warming up. Fetches and reads go at rates
of nodes and networks, which are learned over all models, one for each rung; the rest is the model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cotenant_serving.contract import Heartbeat, Rung, WeightsLoad

LEARN = 0.3
"""Part that the newest load has in a moving value: a few loads after a change it is right again."""
COUNTS_BYTES = 64 * 2**20
"""Smaller loads tell of latencies, not of rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoads:
    """Of one model."""

    read_bytes: int
    """At its last load."""
    rest_s: float
    """Moving value."""
    read_from: Literal["disk", "memory"]
    """At its last load: where it will be read from again, where it is on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTimes:
    """Moving values over all engines of the pool."""

    bytes_per_s: Mapping[Rung, float] = field(default_factory=dict)
    rest_s: float | None = None
    models: Mapping[str, ModelLoads] = field(default_factory=dict)

    def learned(self, beat: Heartbeat) -> "LoadTimes":
        """With the first heartbeat of an engine that is ready."""
        load = beat.load
        if beat.state != "ready" or load is None:
            return self
        rest_s = max(0.0, beat.load_s - load.fetched_s - load.read_s)
        before = self.models.get(beat.model)
        model = ModelLoads(
            read_bytes=load.read_bytes,
            rest_s=_moved(before.rest_s if before else None, rest_s),
            read_from=load.read_from,
        )
        return replace(
            self,
            bytes_per_s=_rates(self.bytes_per_s, load),
            rest_s=_moved(self.rest_s, rest_s),
            models={**self.models, beat.model: model},
        )

    def expected_s(self, model: str, weights_bytes: int, *, download: bool = False) -> float | None:
        """Start of the process to ready; None when too little is known. `weights_bytes`: 0 when unknown."""
        known = self.models.get(model)
        size_bytes = weights_bytes or (known.read_bytes if known else 0)
        rest_s = known.rest_s if known else self.rest_s
        fetch_s = self.fetch_s(size_bytes) if download else 0.0
        read_s = self._read_s(size_bytes, "memory" if download else known.read_from if known else "disk")
        return None if rest_s is None or fetch_s is None or read_s is None else rest_s + fetch_s + read_s

    def fetch_s(self, size_bytes: int) -> float | None:
        """How long it takes to download so many bytes."""
        rate = self.bytes_per_s.get("download")
        return size_bytes / rate if rate and size_bytes else None

    def _read_s(self, size_bytes: int, read_from: Literal["disk", "memory"]) -> float | None:
        rate = self.bytes_per_s.get(read_from) or self.bytes_per_s.get("disk") or self.bytes_per_s.get("memory")
        return size_bytes / rate if rate and size_bytes else None


def _rates(rates: Mapping[Rung, float], load: WeightsLoad) -> Mapping[Rung, float]:
    measured: tuple[tuple[Rung, int, float], ...] = (
        ("download", load.fetched_bytes, load.fetched_s),
        (load.read_from, load.read_bytes, load.read_s),
    )
    counting = {
        rung: _moved(rates.get(rung), size_bytes / seconds)
        for rung, size_bytes, seconds in measured
        if size_bytes >= COUNTS_BYTES and seconds > 0
    }
    return {**rates, **counting}


def _moved(before: float | None, now: float) -> float:
    return now if before is None else before + LEARN * (now - before)
