"""Which models are on which nodes' disks, as far as their weight caches have told. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cotenant_cache.contract import CachedModel, NodeRefusal, NodeReport, Progress
from cotenant_cache.errors import CacheError
from cotenant_cache.source import HubSource, parse_source
from cotenant_serving.contract import NodeWeights

MOST_CHARS = 500
"""Of what one says that cannot use its volume."""


@dataclass(frozen=True, slots=True)
class NodeCache:
    """What one node has, whole and verified: `hf://repo@revision` of each commit, and of each branch that is recorded
    as one."""

    sources: frozenset[str] = frozenset()
    node: str = ""
    here: Mapping[str, int] = field(default_factory=dict)
    """Of `sources`: bytes."""
    fetching: Mapping[str, int] = field(default_factory=dict)
    """Source → percent."""
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Source → reason and message."""
    problem: tuple[str, str] | None = None
    """Reason and message of one that cannot use its volume: nobody can have a model by it."""

    @classmethod
    def of(cls, report: NodeReport) -> "NodeCache":
        ready = [model for model in report.models if model.whole and model.verified]
        here = {name: model.size_bytes for model in ready for name in _names(model)}
        return cls(
            frozenset(here),
            report.node,
            here,
            {cache_name(said.source): _percent(said) for said in report.fetching},
            {cache_name(said.source): (said.reason, said.message) for said in report.failed},
        )


def unusable(said: NodeRefusal, address: str) -> NodeCache:
    return NodeCache(
        node=(said.node or address)[:MOST_CHARS], problem=(said.reason[:MOST_CHARS], said.message[:MOST_CHARS])
    )


def node_weights(caches: Iterable[NodeCache], sources: Collection[str]) -> tuple[NodeWeights, ...]:
    """What nodes have of these sources, as they stand there; several caches of one node are one.

    Where no source is of a hub, nodes are named only if one has a problem: then all, so that they can be counted.
    """
    names = {cache_name(source): source for source in sources if cache_name(source)}
    here: dict[str, dict[str, int]] = defaultdict(dict)
    fetching: dict[str, dict[str, int]] = defaultdict(dict)
    failed: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    problems: dict[str, tuple[str, str] | None] = {}
    for cache in caches:
        problems[cache.node] = problems.get(cache.node) or cache.problem
        here[cache.node] |= {names[name]: size for name, size in cache.here.items() if name in names}
        fetching[cache.node] |= {names[name]: part for name, part in cache.fetching.items() if name in names}
        failed[cache.node] |= {names[name]: said for name, said in cache.failed.items() if name in names}
    return tuple(
        NodeWeights(node=node, here=here[node], fetching=fetching[node], failed=failed[node], problem=problems[node])
        for node in sorted(problems if names or any(problems.values()) else ())
    )


def _percent(said: Progress) -> int:
    """In tens, so that it does not change all the time."""
    return 100 * said.done_bytes // max(1, said.total_bytes) // 10 * 10


@lru_cache(maxsize=10_000)
def cache_name(source: str) -> str:
    """How `NodeCache` names a source; empty for what no weight cache has: folders, and engines without files."""
    if not source:
        return ""
    try:
        parsed = parse_source(source)
    except CacheError:
        return ""
    return parsed.at(parsed.revision) if isinstance(parsed, HubSource) else ""


def _names(model: CachedModel) -> tuple[str, ...]:
    return (model.source, *(f"hf://{model.repo}@{revision}" for revision in model.revisions))
