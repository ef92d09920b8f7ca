"""What an operator counts: `cotenant_operator_…` in Prometheus' text format."""

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cotenant_operator.actions import Actions
from cotenant_operator.pool_pass import PoolInput
from cotenant_operator.watching import Watched
from cotenant_serving.contract import Rung

ROUND_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class OperatorMetrics:
    """`calls` are those to the API server: (verb, status) → how many."""

    def __init__(
        self,
        *,
        leads: Callable[[], bool],
        watched: Iterable[Watched],
        calls: Callable[[], Mapping[tuple[str, int], int]],
    ) -> None:
        self._registry = CollectorRegistry()
        self._leads, self._watched, self._calls = leads, tuple(watched), calls
        self._rounds = Histogram(
            "cotenant_operator_round_seconds",
            "One round: read the caches, decide, write the difference.",
            ["kind"],
            buckets=ROUND_BUCKETS,
            registry=self._registry,
        )
        self._writes = Counter(
            "cotenant_operator_object_writes_total",
            "Objects, statuses and desired states that passes over pools wrote.",
            ["kind"],
            registry=self._registry,
        )
        self._models = Gauge(
            "cotenant_operator_models", "ModelDeployments of a pool.", ["pool"], registry=self._registry
        )
        self._answers = Gauge(
            "cotenant_operator_conductor_up",
            "1 while a conductor of the pool answers.",
            ["pool"],
            registry=self._registry,
        )
        self._rates = Gauge(
            "cotenant_operator_weights_bytes_per_second",
            "At which engines of a pool got their weights lately, as its conductor has learned.",
            ["pool", "rung"],
            registry=self._registry,
        )
        self._config_bytes = 0
        self._left_out = {"models": 0, "tenants": 0}
        self._registry.register(self)

    def round_ended(self, kind: str, seconds: float) -> None:
        self._rounds.labels(kind).observe(seconds)

    def pool(self, name: str, given: PoolInput, actions: Actions) -> None:
        self._models.labels(name).set(len(given.objects))
        up = any(seen.status is not None for seen in given.world.conductors.values())
        self._answers.labels(name).set(1 if up else 0)
        for status in (seen.status for seen in given.world.conductors.values() if seen.status is not None):
            for rung, rate in status.rates.items():
                self._rates.labels(name, rung).set(rate)
        for kind, count in (
            ("object", len(actions.writes)),
            ("status", len(actions.statuses)),
            ("desired", len(actions.puts)),
            ("event", len(actions.events)),
        ):
            self._writes.labels(kind).inc(count)

    def gateway_config(self, packed_bytes: int, models: int, tenants: int) -> None:
        """How large it is, and how many are left out."""
        self._config_bytes, self._left_out = packed_bytes, {"models": models, "tenants": tenants}

    def forget_pool(self, name: str) -> None:
        for metric in (self._models, self._answers):
            metric.remove(name)
        for rung in get_args(Rung):
            self._rates.remove(name, rung)

    def text(self) -> bytes:
        return bytes(generate_latest(self._registry))

    def collect(self) -> Iterable[Metric]:
        """What is looked up when it is asked for."""
        yield GaugeMetricFamily(
            "cotenant_operator_leader", "1 in the operator that writes.", value=float(self._leads())
        )
        calls = CounterMetricFamily(
            "cotenant_operator_api_calls_total",
            "Calls to the API server; code 0: no answer.",
            labels=["verb", "code"],
        )
        for (verb, code), count in sorted(self._calls().items()):
            calls.add_metric([verb, str(code)], count)
        yield calls
        objects = GaugeMetricFamily("cotenant_operator_objects", "Objects that are watched.", labels=["kind"])
        stale = GaugeMetricFamily(
            "cotenant_operator_watch_stale", "1 while changes of a kind are not seen.", labels=["kind"]
        )
        for watched in self._watched:
            objects.add_metric([watched.kind.plural], len(watched.objects))
            stale.add_metric([watched.kind.plural], float(bool(watched.problem)))
        yield objects
        yield stale
        yield from self._gateway_config() if self._leads() else ()

    def _gateway_config(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "cotenant_operator_gateway_config_bytes",
            "The gateways' configuration as it stands in its Secret; only of the operator that writes it.",
            value=float(self._config_bytes),
        )
        left_out = GaugeMetricFamily(
            "cotenant_operator_gateway_config_left_out",
            "Models and tenants that have no room in it: nobody can call them, or in their name.",
            labels=["kind"],
        )
        for kind, count in self._left_out.items():
            left_out.add_metric([kind], count)
        yield left_out
