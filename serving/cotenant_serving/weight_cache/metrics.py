"""What a cache instance counts: `cotenant_cache_…` in Prometheus' text format. No model is named: labels stay few."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cotenant_cache.contract import CachedModel, Usage
from cotenant_serving.weight_cache.node import CacheNode
from cotenant_serving.weight_cache.verification import Verification

GAUGES = (
    ("cotenant_cache_budget_bytes", "What the cache may use of the volume.", "budget_bytes"),
    ("cotenant_cache_used_bytes", "What it uses, unfinished and quarantined files included.", "used_bytes"),
    ("cotenant_cache_reserved_bytes", "Promised to fetches that run, and not written yet.", "reserved_bytes"),
    ("cotenant_cache_partial_bytes", "Of files that are not whole yet.", "partial_bytes"),
    ("cotenant_cache_quarantined_bytes", "Of files that did not match their digest.", "quarantined_bytes"),
    ("cotenant_cache_disk_free_bytes", "Free on the volume's file system.", "disk_free_bytes"),
    ("cotenant_cache_models", "Models on the volume, whole or not.", "models"),
    ("cotenant_cache_blobs", "Files on the volume.", "blobs"),
    ("cotenant_cache_instances", "Live cache instances on the volume.", "instances"),
)


class CacheMetrics:
    def __init__(
        self, node: CacheNode, verification: Verification, fetched_bytes: Callable[[], Mapping[str, int]]
    ) -> None:
        """`fetched_bytes`: by where they came from."""
        self._node, self._verification, self._fetched = node, verification, fetched_bytes
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Blocks: the ledger is read. Raises CacheError."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected when it is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        cache = self._node.cache
        yield from _of_usage(cache.usage())
        yield _leases(cache.models())
        ended = CounterMetricFamily(
            "cotenant_cache_ensures_total", "Models that were asked for, by how that ended.", labels=["outcome"]
        )
        for outcome, count in sorted(self._node.ended.items()):
            ended.add_metric([outcome], count)
        yield ended
        fetched = CounterMetricFamily("cotenant_cache_fetched_bytes_total", "Of whole files.", labels=["from"])
        for origin, count in self._fetched().items():
            fetched.add_metric([origin], count)
        yield fetched
        yield CounterMetricFamily(
            "cotenant_cache_verified_bytes_total", "Read again in the background.", self._verification.read_bytes
        )
        yield CounterMetricFamily(
            "cotenant_cache_bad_blobs_total", "Found not to match their digest any more.", self._verification.bad
        )


def _of_usage(usage: Usage) -> Iterable[Metric]:
    for name, text, field in GAUGES:
        yield GaugeMetricFamily(name, text, getattr(usage, field))


def _leases(models: tuple[CachedModel, ...]) -> Metric:
    count = sum(model.leases for model in models)
    return GaugeMetricFamily("cotenant_cache_leases", "Uses of models that keep them from being evicted.", count)
