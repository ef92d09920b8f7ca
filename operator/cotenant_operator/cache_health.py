"""Weight caches that cannot be used, and node agents that do not come up, in words of bounded length. Pure."""

from collections import defaultdict
from collections.abc import Sequence

from cotenant_operator.cluster_names import CACHE_LABEL, cache_objects
from cotenant_operator.pool_seen import PoolSeen
from cotenant_serving.contract import NodeWeights

MOST_NODES, MOST_CAUSES, MOST_CHARS = 3, 2, 240
"""What a message names; of the rest it has the count. Characters: of one cause."""


def unusable(nodes: Sequence[NodeWeights]) -> str:
    """`node-3: VolumeUnusable: …`, with nodes of one cause together; empty when all can be used."""
    causes: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if node.problem is not None:
            causes[": ".join(node.problem)].append(node.node)
    most = sorted(causes.items(), key=lambda cause: (-len(cause[1]), cause[0]))
    lines = [f"{_named(names)}: {_cut(cause)}" for cause, names in most[:MOST_CAUSES]]
    rest = sum(len(names) for _, names in most[MOST_CAUSES:])
    return "; ".join([*lines, *([f"and {rest} more with other causes"] if rest else [])])


def troubles(pool: PoolSeen) -> list[str]:
    """Of all caches of a pool, for its owner; empty when nothing is known to be wrong."""
    broken = sum(node.problem is not None for node in pool.weights)
    found = []
    if broken:
        count = f"{broken} of {len(pool.weights)} node{'s' if len(pool.weights) > 1 else ''}"
        found.append(f"the weight caches of {count} cannot use their volume: {unusable(pool.weights)}")
    agents = pool.agents
    if agents is not None and agents.ready < agents.wanted:
        found.append(f"{agents.ready} of {agents.wanted} node agents are ready: {_why(pool)}")
    return found


def _why(pool: PoolSeen) -> str:
    """What a pod says. Else Kubernetes has it in Events alone: then what it mostly is, and where to read it."""
    assert pool.agents is not None
    if pool.agents.trouble:
        return _cut(pool.agents.trouble)
    name, in_namespace = pool.pool.metadata.name, f"kubectl -n {pool.agents.namespace} describe"
    if pool.agents.created < pool.agents.wanted:
        refused = pool.agents.wanted - pool.agents.created
        return (
            f"{refused} cannot be made, as where the namespace's pod security forbids hostPath, or a quota does; "
            f"see: {in_namespace} daemonset {cache_objects(name)}"
        )
    return (
        f"the others start, or cannot, as where a node has no folder {pool.pool.spec.cache.path}; "
        f"see: {in_namespace} pod -l {CACHE_LABEL}={name},app.kubernetes.io/component=cache"
    )


def _named(nodes: Sequence[str]) -> str:
    rest = len(nodes) - MOST_NODES
    return ", ".join(nodes[:MOST_NODES]) + (f" and {rest} more" if rest > 0 else "")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"
