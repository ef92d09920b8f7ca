"""Kubernetes objects of one pool → what rolling and status look at. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotenant_operator.cluster_names import (
    CACHE_LABEL,
    GROUP_LABEL,
    POOL_LABEL,
    ROLL_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import (
    at,
    condition,
    container_states,
    instant,
    labels_of,
    namespace_of,
    number_at,
)
from cotenant_operator.pool_seen import AgentsSeen, Head, KubeRay, PodSeen
from cotenant_operator.render.pool_template import template_from_json
from cotenant_operator.roll_world import ClusterSeen, Workers, handover_from_json
from cotenant_operator.stuck_pods import stuck
from cotenant_serving.contract import Desired, PoolStatus

SILENT_S = 60.0
"""KubeRay that has not written a status of a RayCluster for so long does not run."""
CLUSTER_LABEL, NODE_TYPE_LABEL = "ray.io/cluster", "ray.io/node-type"
RAY_GROUP_LABEL = "ray.io/group"
"""By which KubeRay counts the pods of a group; those that end are without it (`ending_pods`)."""


@dataclass(frozen=True, slots=True)
class ConductorSeen:
    """What the conductor of one RayCluster said last."""

    status: PoolStatus | None = None
    problem: str = ""
    """Why it says nothing now; empty while it answers."""
    desired: Desired | None = None
    """What it was told last, by whomever; None: nothing, or it does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWorld:
    """Everything of one pool that stands in the cluster, as plain objects."""

    clusters: tuple[Object, ...] = ()
    """RayClusters with the pool's label, oldest first."""
    services: Mapping[str, Object] = field(default_factory=dict)
    """Services of their conductors and of the pool's weight caches, by name."""
    policies: Mapping[str, Object] = field(default_factory=dict)
    """NetworkPolicies of them and of the pool's weight caches, by name."""
    preload: Object | None = None
    """ConfigMap with what weight caches are to have."""
    facts: Object | None = None
    """ConfigMap with what the pool's models are."""
    agent: Object | None = None
    """DaemonSet of the weight caches of nodes."""
    agent_pods: tuple[Object, ...] = ()
    """Its pods."""
    pods: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    """RayCluster → its pods."""
    conductors: Mapping[str, ConductorSeen] = field(default_factory=dict)
    """RayCluster → its conductor."""
    kuberay_served: bool = True
    """Whether the API server knows ray.io/v1."""
    refused: str = ""
    """What the API server did not take of the last pass, and why; empty: it took all."""
    routed: frozenset[str] | None = None
    """RayClusters whose conductors stand in the gateways' configuration; None: nobody knows."""
    node_resources: Mapping[str, int] | None = None
    now_s: float
    """Unix seconds."""

    def cluster(self, name: str) -> Object | None:
        return next((item for item in self.clusters if item["metadata"]["name"] == name), None)


def pool_of(item: Object) -> str:
    """The pool that a RayCluster, Service or NetworkPolicy is of; empty for a stranger."""
    return labels_of(item).get(POOL_LABEL, "")


def clusters_seen(world: PoolWorld) -> tuple[ClusterSeen, ...]:
    return tuple(_cluster_seen(item, world) for item in world.clusters)


def _cluster_seen(item: Object, world: PoolWorld) -> ClusterSeen:
    metadata = item["metadata"]
    annotations = metadata.get("annotations") or {}
    name = metadata["name"]
    pods = world.pods.get(name, ())
    conductor = world.conductors.get(name, ConductorSeen())
    told = conductor.desired
    return ClusterSeen(
        name=name,
        created_s=_created_s(item),
        template=template_from_json(annotations.get(TEMPLATE_ANNOTATION, "")),
        deleting=bool(metadata.get("deletionTimestamp")),
        handover=handover_from_json(annotations.get(ROLL_ANNOTATION, "")),
        conductor=conductor.status,
        told_warm=told.warm if told is not None else {},
        told_to_go=told is not None and told.draining and not told.models,
        workers=_workers(pods),
        problem=head_problem(item, pods, world.now_s),
    )


def _workers(pods: Iterable[Object]) -> Workers:
    placed: Counter[str] = Counter()
    ending: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    message = ""
    for pod in pods:
        labels, metadata = labels_of(pod), pod["metadata"]
        if labels.get(NODE_TYPE_LABEL) != "worker" or has_ended(pod):
            continue
        group = labels.get(GROUP_LABEL, "")
        if pod.get("spec", {}).get("nodeName"):
            (ending if metadata.get("deletionTimestamp") else placed)[group] += 1
        elif metadata.get("deletionTimestamp"):
            continue
        elif unschedulable := _unschedulable(pod):
            waiting[group] += 1
            message = message or unschedulable
    return Workers(placed=dict(placed), ending=dict(ending), waiting=dict(waiting), waiting_message=message)


def has_ended(pod: Object) -> bool:
    """It holds nothing of its node any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def ready_workers(pods: Iterable[Object]) -> dict[str, int]:
    """Worker group → pods that are ready."""
    found: Counter[str] = Counter()
    for pod in pods:
        labels = labels_of(pod)
        if labels.get(NODE_TYPE_LABEL) == "worker" and is_ready(pod):
            found[labels.get(GROUP_LABEL, "")] += 1
    return dict(found)


def agent_pods(pods: Iterable[Object], pool: str) -> tuple[Object, ...]:
    """Those of its node agents: they have a weight cache, and nothing of Ray."""
    labels = ((pod, labels_of(pod)) for pod in pods)
    return tuple(pod for pod, has in labels if has.get(CACHE_LABEL) == pool and CLUSTER_LABEL not in has)


def agents_seen(agent: Object | None, pods: Iterable[Object], now_s: float) -> AgentsSeen | None:
    """As the DaemonSet's controller has counted them, since it was changed last. `pods` are its pods."""
    if (
        agent is None
        or not agent.get("status")
        or number_at(agent, "status", "observedGeneration") < number_at(agent, "metadata", "generation")
    ):
        return None
    failing = (pod for pod in pods_seen(pods, now_s) if pod.reason)
    return AgentsSeen(
        namespace=namespace_of(agent),
        wanted=number_at(agent, "status", "desiredNumberScheduled"),
        created=number_at(agent, "status", "currentNumberScheduled"),
        ready=number_at(agent, "status", "numberReady"),
        trouble=next((f"pod {pod.name}: {pod.reason}: {pod.message}" for pod in failing), ""),
    )


def pods_seen(pods: Iterable[Object], now_s: float) -> tuple[PodSeen, ...]:
    """Those that are not as they should be: neither ready nor ending."""
    found = []
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp") or is_ready(pod):
            continue
        labels = labels_of(pod)
        reason, message = trouble(pod, now_s)
        group = "" if labels.get(NODE_TYPE_LABEL) == "head" else labels.get(GROUP_LABEL, "")
        found.append(PodSeen(name=metadata["name"], group=group, reason=reason, message=message))
    return tuple(sorted(found, key=lambda pod: pod.name))


def trouble(pod: Object, now_s: float) -> tuple[str, str]:
    """(reason, message) of a pod that does not get ready; both empty when it is only on its way."""
    if unschedulable := _unschedulable(pod):
        return "Unschedulable", unschedulable
    for name, container in container_states(pod):
        if container.get("restartCount", 0) > 1 and not container.get("ready") and _ended(container):
            # Between two ends it runs, or waits for its back-off: it is failing all the while.
            return "CrashLoopBackOff", f"container {name}: {_why(container, {})}"
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return waiting["reason"], f"container {name}: {_why(container, waiting)}".rstrip(": ")
    if waits_for := stuck(pod, now_s):
        return "ContainerCreating", waits_for
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return status.get("reason") or "Failed", status.get("message") or ""
    return "", ""


def _why(container: Mapping[str, Any], waiting: Mapping[str, Any]) -> str:
    """How it ended last, if it did: that stays the same, while the back-off in Kubernetes' words grows."""
    if ended := _ended(container):
        return f"ended with exit code {ended.get('exitCode')} ({ended.get('reason') or 'no reason given'})"
    return str(waiting.get("message") or "")


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return (container.get("lastState") or {}).get("terminated") or {}


def _unschedulable(pod: Object) -> str:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return str(scheduled.get("message") or "no node has room for it")
    return ""


def head_of(pods: Iterable[Object]) -> Object | None:
    """The head's pod that is not ending."""
    for pod in pods:
        labels = labels_of(pod)
        if labels.get(NODE_TYPE_LABEL) == "head" and not pod["metadata"].get("deletionTimestamp"):
            return pod
    return None


def head_state(cluster: Object | None, pods: Sequence[Object]) -> Head:
    if cluster is None:
        return "absent"
    head = head_of(pods)
    if head is not None and is_ready(head):
        return "ready"
    was_ready = condition(cluster, "RayClusterProvisioned").get("status") == "True"
    return "lost" if was_ready else "pending"


def head_problem(cluster: Object, pods: Sequence[Object], now_s: float) -> str:
    """Why the head does not come up, for people; empty when nothing is known."""
    head = head_of(pods)
    if head is not None:
        if is_ready(head):
            return ""
        reason, message = trouble(head, now_s)
        return f"{reason}: {message}" if reason else ""
    failure = condition(cluster, "ReplicaFailure")
    if failure.get("status") == "True":
        return f"{failure.get('reason', 'FailedCreate')}: {failure.get('message', '')}"
    return str((cluster.get("status") or {}).get("reason") or "")


def kuberay(world: PoolWorld) -> KubeRay:
    if not world.kuberay_served:
        return "missing"
    for item in world.clusters:
        age_s = world.now_s - _created_s(item)
        if not item.get("status") and age_s > SILENT_S:
            return "silent"
    return "present"


def is_ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def _created_s(item: Object) -> float:
    return instant(at(item, "metadata", "creationTimestamp")) or 0.0


def node_resources(nodes: Iterable[Object]) -> dict[str, int]:
    """Extended resource → units that Ready nodes have in all, `example.com/thing` and the like."""
    found: Counter[str] = Counter()
    for node in nodes:
        if not is_ready(node):
            continue
        for name, amount in ((node.get("status") or {}).get("allocatable") or {}).items():
            if "/" in name and str(amount).isdigit():
                found[name] += int(amount)
    return dict(found)


def ready_endpoints(slices: Iterable[Object]) -> int:
    """Pods that a Service's EndpointSlices name as ready."""
    pods = set()
    for item in slices:
        for endpoint in item.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready"):
                target = endpoint.get("targetRef") or {}
                pods.add(target.get("uid") or tuple(endpoint.get("addresses") or ()))
    return len(pods)
