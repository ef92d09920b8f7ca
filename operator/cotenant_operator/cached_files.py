"""Where a model's files are, as far as anybody can say: the condition `Cached` and the counts beside it. Pure."""

from collections.abc import Mapping
from typing import Any

from cotenant_operator.cache_health import unusable
from cotenant_operator.condition_reasons import REASONS, ClusterReason
from cotenant_operator.dated import Status, condition
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.quantity import show_bytes
from cotenant_operator.status import Condition
from cotenant_serving.contract import NodeWeights, Reason


def cached_condition(
    given: Condition, planned: ModelPlan, pool: PoolSeen | None, previous: Mapping[str, Any] | None
) -> Condition:
    """`given` is what engines and the spec tell. What weight caches say comes first, what they leave behind last."""
    if given.status == "False":
        return given
    found = _on_nodes(planned, pool)
    if found is not None:
        return found
    if given.status != "Unknown" or planned.engine is None or pool is None:
        return given
    return _left_behind(given, planned.engine.revision, pool, previous)


def cached_counts(cached: Condition, planned: ModelPlan, pool: PoolSeen | None) -> Status:
    """`status.cached`; only the condition's status where no weight cache has said anything. All of it changes with
    the condition's message."""
    nodes, source = _told(planned, pool), _source(planned)
    if not nodes:
        return {"summary": cached.status}
    sizes = _sizes(nodes, source)
    size = max(sizes, default=0)
    summary = f"{len(sizes)}/{len(nodes)}{f' {show_bytes(size)}' if sizes else ''}"
    return {"nodes": len(sizes), "of": len(nodes), "bytes": size, "summary": summary}


def _source(planned: ModelPlan) -> str:
    return planned.engine.source if planned.engine is not None else ""


def _told(planned: ModelPlan, pool: PoolSeen | None) -> tuple[NodeWeights, ...]:
    """By node; empty where no weight cache has said anything of a model from a hub."""
    return pool.weights if pool is not None and _source(planned).startswith("hf://") else ()


def _sizes(nodes: tuple[NodeWeights, ...], source: str) -> list[int]:
    """Bytes on each node that has it."""
    return [node.here[source] for node in nodes if source in node.here]


def _on_nodes(planned: ModelPlan, pool: PoolSeen | None) -> Condition | None:
    told, source = _told(planned, pool), _source(planned)
    if not told:
        return None
    nodes = f"{len(told)} node{'s' if len(told) > 1 else ''}"
    broken = unusable(told)
    beside = f"; {broken}" if broken else ""
    sizes = _sizes(told, source)
    if sizes:
        message = f"on {len(sizes)} of {nodes}, {show_bytes(max(sizes))} each{beside}"
        return Condition("Cached", "True", ClusterReason.ON_DISK, message)
    parts = [node.fetching[source] for node in told if source in node.fetching]
    if parts:
        message = f"{max(parts)} % fetched; on none of {nodes} yet{beside}"
        return Condition("Cached", "False", ClusterReason.FETCHING, message)
    for node in told:
        if source in node.failed:
            reason, message = node.failed[source]
            return Condition("Cached", "False", _known(reason), f"node {node.node}: {message}{beside}")
    problems = [node.problem for node in told if node.problem is not None]
    why = _known(problems[0][0]) if len(problems) == len(told) else ClusterReason.NOT_FETCHED_YET
    return Condition("Cached", "False", why, f"on none of {nodes} yet{beside}")


def _known(reason: str) -> str:
    return reason if reason in REASONS else Reason.LOAD_FAILED


def _left_behind(given: Condition, revision: str, pool: PoolSeen, previous: Mapping[str, Any] | None) -> Condition:
    """A folder of a node and a claim stay when pods go; a pod's own models go with it."""
    same = (previous or {}).get("targetRevision") == revision
    before = condition(previous, "Cached") if same else {}
    was_there = before.get("status") == "True"
    if not pool.pool.spec.cache.per_pod:
        if pool.agents is not None and not pool.agents.wanted:
            message = "the pool's worker groups have no node now, so no disk has it"
            return Condition("Cached", "False", ClusterReason.NOT_FETCHED_YET, message)
        if was_there:
            return Condition("Cached", "True", ClusterReason.LOADED_BEFORE, "it was on disk when that was last known")
    elif not any(pool.workers.values()):
        return Condition(
            "Cached",
            "False",
            ClusterReason.NOT_FETCHED_YET,
            "no worker pod has it: each keeps its own models, and they go with it; "
            f"spec.cache.path or claimName of GPUPool {pool.pool.metadata.name} would keep them",
        )
    elif (was_there or before.get("reason") == Reason.CONDUCTOR_UNREACHABLE) and not pool.statuses:
        return Condition(
            "Cached", "Unknown", Reason.CONDUCTOR_UNREACHABLE, "nobody says now what the worker pods have on disk"
        )
    return given
