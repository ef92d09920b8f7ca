"""Prometheus metrics of a gateway, in a registry of their own.

Labels name configured tenants and models only; everything else counts as `other`, so that no client can make series.

A worker of several counts in files of its own (prometheus_client's multiprocess mode), so that each of them answers
for all and a worker that is killed takes no count with it:

    STATE/metrics/{counter,histogram}_WORKER.db   made by the supervisor (`metric_files`);
                                                  a worker goes on with those of its number
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cotenant_serving.gateway.memory import own_resident_bytes
from cotenant_serving.gateway.metric_values import Place, ValueFiles, place_of, value_class

OTHER = "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
Family = TypeVar("Family", Counter, Histogram)


@dataclass(frozen=True, slots=True)
class Now:
    """What is read at the moment of a scrape. `models`: name → (queue depth, in flight, engines)."""

    models: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    workers: int = 1
    restarts: int = 0
    usage_waiting: int = 0
    usage_dropped: int = 0
    usage_recovered: int = 0
    usage_unsent_bytes: int = 0
    generation: int = 0
    """Of the configuration; 0 while there is none."""


def use_files(folder: Path, worker: int) -> None:
    """Makes prometheus_client count in the files of this worker.

    Before any metric is made: the library decides that once for the whole process.
    """
    values.ValueClass = value_class(ValueFiles(folder, worker))


class Metrics:
    def __init__(self, folder: Path | None = None, resident_bytes: Callable[[], int] = own_resident_bytes) -> None:
        """`folder`: of the files of all workers (see `use_files`); without one this process counts alone.

        `resident_bytes`: memory of all processes; asked by `render`, as it takes a while.
        """
        self._registry = CollectorRegistry()
        self._snapshot = _Snapshot(resident_bytes)
        self._tenants: frozenset[str] = frozenset()
        self._models: frozenset[str] = frozenset()
        registry = None if folder else self._registry
        if folder:
            multiprocess.MultiProcessCollector(self._registry, str(folder))  # type: ignore[no-untyped-call]
        self._registry.register(self._snapshot)
        self._requests = _Children(
            Counter(
                "cotenant_requests",
                "Admitted requests that ended.",
                ("tenant", "model", "outcome", "code"),
                registry=registry,
            )
        )
        self._tokens = _Children(
            Counter("cotenant_tokens", "Tokens of ended requests.", ("tenant", "model", "kind"), registry=registry)
        )
        self._ended: dict[tuple[str, str, str, int], _Ended] = {}
        self._duration = _Histograms(
            Histogram(
                "cotenant_request_duration_seconds",
                "Admission to last byte.",
                ("model",),
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._first_byte = _Histograms(
            Histogram(
                "cotenant_time_to_first_byte_seconds",
                "Admission to first byte of the answer.",
                ("model",),
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._retries = _Children(
            Counter("cotenant_upstream_retries", "Requests sent back to the queue.", ("reason",), registry=registry)
        )
        self._rejections = _Children(
            Counter(
                "cotenant_rejections",
                "Requests refused before any engine saw them.",
                ("tenant", "reason"),
                registry=registry,
            )
        )

    def allow(self, tenants: Iterable[str], models: Iterable[str]) -> None:
        """The names that may stand in labels from now on."""
        self._tenants, self._models = frozenset(tenants), frozenset(models)
        self._ended.clear()

    def ended(
        self,
        tenant: str,
        model: str,
        outcome: str,
        status: int,
        *,
        duration_s: float,
        prompt: int,
        completion: int,
        first_byte_s: float | None = None,
    ) -> None:
        """`prompt`, `completion`: tokens. `first_byte_s`: where `first_byte` was not called.

        It runs for every request and counts all by itself: calls are what costs here.
        """
        key = (tenant, model, outcome, status)
        places = self._ended.get(key)
        if places is None:
            places = self._ended[key] = self._places(*key)
        numbers, at = places.requests
        numbers[at] += 1
        numbers, at = places.prompt
        numbers[at] += prompt
        numbers, at = places.completion
        numbers[at] += completion
        numbers, at = places.duration.sum
        numbers[at] += duration_s
        numbers, at = places.duration.buckets[bisect_left(_SECONDS, duration_s)]
        numbers[at] += 1
        if first_byte_s is not None:
            numbers, at = places.first_byte.sum
            numbers[at] += first_byte_s
            numbers, at = places.first_byte.buckets[bisect_left(_SECONDS, first_byte_s)]
            numbers[at] += 1

    def first_byte(self, model: str, seconds: float) -> None:
        """Of a stream, when it comes."""
        places = self._first_byte(self._model(model))
        numbers, at = places.sum
        numbers[at] += seconds
        numbers, at = places.buckets[bisect_left(_SECONDS, seconds)]
        numbers[at] += 1

    def retried(self, reason: str) -> None:
        self._retries(reason).inc()

    def rejected(self, tenant: str | None, reason: str) -> None:
        self._rejections(self._tenant(tenant or ""), reason).inc()

    def render(self, now: Now) -> bytes:
        """Text exposition."""
        self._snapshot.now = now
        return generate_latest(self._registry)

    def _places(self, tenant: str, model: str, outcome: str, status: int) -> "_Ended":
        tenant, model = self._tenant(tenant), self._model(model)
        return _Ended(
            requests=place_of(self._requests(tenant, model, outcome, str(status))._value),
            prompt=place_of(self._tokens(tenant, model, "prompt")._value),
            completion=place_of(self._tokens(tenant, model, "completion")._value),
            duration=self._duration(model),
            first_byte=self._first_byte(model),
        )

    def _tenant(self, name: str) -> str:
        return name if name in self._tenants else OTHER

    def _model(self, name: str) -> str:
        return name if name in self._models else OTHER


@dataclass(frozen=True, slots=True)
class _Observed:
    """Where a histogram's numbers stand: a bucket for each of `_SECONDS`, and one for what is above."""

    sum: Place
    buckets: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class _Ended:
    """Where stands what a request counts in when it ends."""

    requests: Place
    prompt: Place
    completion: Place
    duration: _Observed
    first_byte: _Observed


class _Histograms:
    """Histograms of models."""

    def __init__(self, family: Histogram) -> None:
        self._family = family
        self._known: dict[str, _Observed] = {}

    def __call__(self, model: str) -> _Observed:
        known = self._known.get(model)
        if known is None:
            one = self._family.labels(model)
            known = _Observed(place_of(one._sum), tuple(place_of(bucket) for bucket in one._buckets))
            self._known[model] = known
        return known


class _Children(Generic[Family]):
    """A metric's children by their labels, found at a fraction of what `labels` costs."""

    def __init__(self, family: Family) -> None:
        self._family: Family = family
        self._known: dict[tuple[str, ...], Family] = {}

    def __call__(self, *labels: str) -> Family:
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._family.labels(*labels)
        return child


class _Snapshot:
    """Metrics that are read, not counted."""

    def __init__(self, resident_bytes: Callable[[], int]) -> None:
        self.now = Now()
        self._resident_bytes = resident_bytes

    def collect(self) -> Iterator[Metric]:
        now = self.now
        for place, (name, text) in enumerate(_OF_MODELS):
            family = GaugeMetricFamily(name, text, labels=("model",))
            for model, numbers in now.models.items():
                family.add_metric((model,), numbers[place])
            yield family
        yield GaugeMetricFamily("cotenant_gateway_workers", "Workers of the gateway.", now.workers)
        yield GaugeMetricFamily(
            "cotenant_gateway_resident_memory_bytes",
            "Resident memory of the gateway's processes together.",
            self._resident_bytes(),
        )
        yield GaugeMetricFamily(
            "cotenant_usage_records_waiting", "Usage records that a full disk keeps in memory.", now.usage_waiting
        )
        for name, text, value in (
            (
                "cotenant_gateway_config_generation",
                "Generation of the configuration that is served; 0: none is.",
                now.generation,
            ),
            (
                "cotenant_usage_unsent_bytes",
                "Usage lines that the operator has not acknowledged; 0 without an operator.",
                now.usage_unsent_bytes,
            ),
        ):
            yield GaugeMetricFamily(name, text, value)
        for name, text, value in (
            ("cotenant_gateway_worker_restarts", "Workers started again after they had died.", now.restarts),
            (
                "cotenant_usage_records_recovered",
                "Usage records made for killed workers.",
                now.usage_recovered,
            ),
            ("cotenant_usage_records_dropped", "Usage records given up: too many waited.", now.usage_dropped),
        ):
            yield CounterMetricFamily(name, text, value)


_OF_MODELS = (
    ("cotenant_queue_depth", "Requests that wait."),
    ("cotenant_requests_in_flight", "Requests that are at engines."),
    ("cotenant_engines", "Engines in the routing table."),
)
