"""What workers tell each second → progress of the whole run, and how busy each of them was. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cotenant_loadtests.orders import Tick
from cotenant_loadtests.ranks import at_percentile
from cotenant_loadtests.results import SATURATED, ProcessLoad
from cotenant_loadtests.run_output import Progress

_SHORT_S = 0.2
"""What is shorter says nothing about the load of a second."""


class TickBook:
    """The ticks of a run's workers; of what was shown, only what tells of their load is kept."""

    def __init__(self, workers: Iterable[int]) -> None:
        self._latest: dict[int, Tick] = {}
        self._fresh: list[Tick] = []
        self._kept: dict[int, list[Tick]] = {number: [] for number in workers}
        self._shown_s = 0.0

    def take(self, worker: int, tick: Tick) -> None:
        self._latest[worker] = tick
        self._fresh.append(tick)
        self._kept[worker].append(msgspec.structs.replace(tick, tenants={}, lateness_us=()))

    @property
    def bytes(self) -> int:
        """Sent and received by all workers, as far as they have told."""
        return sum(tick.bytes_in + tick.bytes_out for tick in self._latest.values())

    def progress(self, running: Sequence[int]) -> Progress | None:
        """Once every worker that runs has told of another second; when none runs, what was not shown yet."""
        if not self._fresh or not all(worker in self._latest for worker in running):
            return None
        ends_s = [self._latest[worker].at_s for worker in running] or [max(tick.at_s for tick in self._fresh)]
        if min(ends_s) <= self._shown_s:
            return None
        self._shown_s = min(ends_s)
        fresh, self._fresh = self._fresh, []
        return progress_of(self._shown_s, list(self._latest.values()), fresh)

    def load(self, worker: int, window: tuple[float, float], *, requests: int) -> ProcessLoad:
        """`window`: seconds from the start."""
        return load_of(worker, self._kept[worker], window, requests=requests)


def progress_of(at_s: float, latest: Sequence[Tick], fresh: Sequence[Tick]) -> Progress:
    """`latest`: the last tick of every worker, for the counts; `fresh`: those of the last second, for its samples."""
    ttft_us: dict[str, list[int]] = {}
    for tick in fresh:
        for tenant, of_tenant in tick.tenants.items():
            ttft_us.setdefault(tenant, []).extend(of_tenant.ttft_us)
    return Progress(
        at_s=at_s,
        sent=_sums(latest, "sent"),
        succeeded=_sums(latest, "succeeded"),
        failed=_sums(latest, "failed"),
        in_flight=_sums(latest, "in_flight"),
        tokens=_sums(latest, "tokens"),
        ttft_p50_ms={tenant: at_percentile(times, 50) / 1000 for tenant, times in ttft_us.items() if times},
        lateness_p99_ms=max((at_percentile(tick.lateness_us, 99) / 1000 for tick in fresh), default=0.0),
        errors=_added(tick.errors for tick in latest),
    )


def load_of(process: int, ticks: Sequence[Tick], window: tuple[float, float], *, requests: int) -> ProcessLoad:
    """Over the ticks that touch the window, else over all of them; begins with 0 s of CPU at the start."""
    spans = list(_spans(ticks))
    within = [span for span in spans if span[0] < window[1] and span[1] > window[0]] or spans
    seconds = sum(to_s - from_s for from_s, to_s, _ in within)
    return ProcessLoad(
        process=process,
        cpu_share=sum(cpu_s for _, _, cpu_s in within) / seconds if seconds else 0.0,
        cpu_share_peak=max((cpu_s / (to_s - from_s) for from_s, to_s, cpu_s in within), default=0.0),
        saturated_share=sum(to_s - from_s for from_s, to_s, cpu_s in within if cpu_s > SATURATED * (to_s - from_s))
        / (seconds or 1.0),
        requests=requests,
        max_rss_bytes=max((tick.rss_bytes for tick in ticks), default=0),
    )


def _spans(ticks: Iterable[Tick]) -> Iterable[tuple[float, float, float]]:
    """(from, to, CPU seconds in between)."""
    at_s = cpu_s = 0.0
    for tick in ticks:
        if tick.at_s - at_s > _SHORT_S:
            yield at_s, tick.at_s, tick.cpu_s - cpu_s
            at_s, cpu_s = tick.at_s, tick.cpu_s


def _added(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    for some in counts:
        sums.update(some)
    return dict(sums)


def _sums(ticks: Iterable[Tick], field: str) -> Mapping[str, int]:
    return _added({tenant: getattr(counts, field) for tenant, counts in tick.tenants.items()} for tick in ticks)
