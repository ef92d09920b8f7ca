"""Prometheus metrics of one gateway, in a registry of their own.

Labels name configured tenants and models only; everything else counts as `other`, so that no client can make series.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OTHER = "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)


class Metrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._tenants: frozenset[str] = frozenset()
        self._models: frozenset[str] = frozenset()
        self._requests = Counter(
            "cotenant_requests",
            "Admitted requests that ended.",
            ("tenant", "model", "outcome", "code"),
            registry=registry,
        )
        self._tokens = Counter(
            "cotenant_tokens", "Tokens of ended requests.", ("tenant", "model", "kind"), registry=registry
        )
        self._duration = Histogram(
            "cotenant_request_duration_seconds",
            "Admission to last byte.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "cotenant_time_to_first_byte_seconds",
            "Admission to first byte of the answer.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue_depth = Gauge("cotenant_queue_depth", "Requests that wait.", ("model",), registry=registry)
        self._in_flight = Gauge(
            "cotenant_requests_in_flight", "Requests that are at engines.", ("model",), registry=registry
        )
        self._engines = Gauge("cotenant_engines", "Engines in the routing table.", ("model",), registry=registry)
        self._retries = Counter(
            "cotenant_upstream_retries", "Requests sent back to the queue.", ("reason",), registry=registry
        )
        self._rejections = Counter(
            "cotenant_rejections",
            "Requests refused before any engine saw them.",
            ("tenant", "reason"),
            registry=registry,
        )

    def allow(self, tenants: Iterable[str], models: Iterable[str]) -> None:
        """The names that may stand in labels from now on."""
        self._tenants, self._models = frozenset(tenants), frozenset(models)

    def ended(self, tenant: str, model: str, *, outcome: str, status: int, duration_s: float) -> None:
        tenant, model = self._tenant(tenant), self._model(model)
        self._requests.labels(tenant, model, outcome, str(status)).inc()
        self._duration.labels(model).observe(duration_s)

    def tokens(self, tenant: str, model: str, *, prompt: int, completion: int) -> None:
        tenant, model = self._tenant(tenant), self._model(model)
        self._tokens.labels(tenant, model, "prompt").inc(prompt)
        self._tokens.labels(tenant, model, "completion").inc(completion)

    def first_byte(self, model: str, seconds: float) -> None:
        self._first_byte.labels(self._model(model)).observe(seconds)

    def retried(self, reason: str) -> None:
        self._retries.labels(reason).inc()

    def rejected(self, tenant: str | None, reason: str) -> None:
        self._rejections.labels(self._tenant(tenant or ""), reason).inc()

    def render(self, gauges: Callable[[str], tuple[int, int, int]]) -> bytes:
        """Text exposition. `gauges`: model → (queue depth, in flight, engines) now."""
        for gauge in (self._queue_depth, self._in_flight, self._engines):
            gauge.clear()
        for model in self._models:
            depth, in_flight, engines = gauges(model)
            self._queue_depth.labels(model).set(depth)
            self._in_flight.labels(model).set(in_flight)
            self._engines.labels(model).set(engines)
        return generate_latest(self._registry)

    def _tenant(self, name: str) -> str:
        return name if name in self._tenants else OTHER

    def _model(self, name: str) -> str:
        return name if name in self._models else OTHER
