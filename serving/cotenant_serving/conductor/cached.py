"""Which models are on which nodes' disks, as far as their weight caches have told. Pure."""

from dataclasses import dataclass
from functools import lru_cache

from cotenant_cache.contract import CachedModel, NodeReport
from cotenant_cache.errors import CacheError
from cotenant_cache.source import HubSource, parse_source


@dataclass(frozen=True, slots=True)
class NodeCache:
    """What one node has, whole: `hf://repo@revision` of each commit, and of each branch that is recorded as one."""

    sources: frozenset[str] = frozenset()

    @classmethod
    def of(cls, report: NodeReport) -> "NodeCache":
        return cls(frozenset(name for model in report.models if model.whole for name in _names(model)))


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
