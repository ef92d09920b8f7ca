"""What keeps a model that was accepted from running, as far as the cluster and not the conductor knows it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.kube_objects import NO_IMAGE
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PodSeen, PoolSeen
from cotenant_operator.spec import Worker
from cotenant_operator.spec_pool import MIG_RESOURCE
from cotenant_operator.status import Condition, ConditionStatus, ConditionType
from cotenant_serving.contract import ModelStatus, Reason

_REFUSED = frozenset({"FailedCreate", "FailedToCreatePod", "Forbidden"})
_NO_POD = frozenset({Reason.POD_PENDING, Reason.NO_NODE})
"""What the conductor says of a model that waits for a pod, not for room, a start lease, or its engine's load."""
INSTALL_KUBERAY = (
    "install it: helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ "
    "-n kuberay-system --create-namespace"
)


@dataclass(frozen=True, slots=True)
class Hindrance:
    status: ConditionStatus
    """False: it does not run. Unknown: nobody can say."""
    reason: str
    message: str

    def as_condition(self, type_: ConditionType) -> Condition:
        return Condition(type_, self.status, self.reason, self.message)


def of_pool(pool: PoolSeen) -> Hindrance | None:
    """Why no conductor of the pool can start engines; None when one can."""
    if pool.kuberay == "missing":
        return Hindrance(
            "False",
            ClusterReason.KUBERAY_MISSING,
            f"this cluster does not serve ray.io/v1, so no pod can be made; {INSTALL_KUBERAY}; "
            "it goes on by itself once KubeRay is there",
        )
    if pool.statuses and not _starts(pool):
        return None
    if pool.kuberay == "silent":
        return Hindrance(
            "False",
            ClusterReason.KUBERAY_SILENT,
            f"nobody acts on RayCluster {pool.active or pool.target}: is KubeRay running, and does it watch this "
            "namespace? kubectl get pods -A -l app.kubernetes.io/component=kuberay-operator",
        )
    if pool.head in ("absent", "pending"):
        return _head_pending(pool)
    if pool.head == "lost":
        return _head_lost(pool)
    return Hindrance(
        "Unknown",
        Reason.CONDUCTOR_UNREACHABLE,
        f"the conductor of RayCluster {pool.active} does not answer{_because(pool.problem)}; models that are warm "
        "answer on; see: kubectl logs -c conductor on its head pod",
    )


def _starts(pool: PoolSeen) -> bool:
    """A conductor answers before Ray beside it does: of a head that was never ready it can start no engine yet."""
    return pool.head == "pending" and not any(status.reconciled for status in pool.statuses)


def _head_pending(pool: PoolSeen) -> Hindrance:
    found = of_pods(pod for pod in pool.pods if not pod.group)
    if found is not None:
        return found
    name = pool.active or pool.target
    what = f"the head of RayCluster {name} is not ready yet" if name else "its RayCluster is about to be made"
    return Hindrance("False", ClusterReason.HEAD_PENDING, what + _because(pool.problem))


def _head_lost(pool: PoolSeen) -> Hindrance:
    gone = f"the head pod of RayCluster {pool.active} is gone and comes back{_because(pool.problem)}; "
    if pool.redis:
        return Hindrance(
            "Unknown",
            ClusterReason.HEAD_LOST,
            gone + "engines answer on meanwhile, and none starts (head.redis is set)",
        )
    return Hindrance(
        "Unknown",
        ClusterReason.HEAD_LOST,
        gone + "engines end about a minute after it and start again when it is back; "
        "set spec.head.redis of the GPUPool to keep them",
    )


def _because(problem: str) -> str:
    return f": {problem}" if problem else ""


def of_model(planned: ModelPlan, seen: ModelStatus | None, pool: PoolSeen) -> Hindrance | None:
    """Why there is no device for an engine of an accepted model, where the nodes and pods of its groups say it."""
    if planned.engine is None:
        return None
    names = [candidate.group for candidate in planned.engine.candidates]
    groups = [worker for worker in pool.pool.spec.workers if worker.name in names]
    missing = _no_node(groups, pool)
    if missing is not None:
        return missing
    needs_a_pod = seen is not None and seen.reason in _NO_POD
    if pool.missing_secret and (needs_a_pod or not any(pool.workers.get(name) for name in names)):
        return of_secret(pool)
    if not needs_a_pod:
        return None
    return of_pods(pod for pod in pool.pods if pod.group in names)


def of_secret(pool: PoolSeen) -> Hindrance:
    """Kubelet holds a pod back for as long as a Secret of it is missing, and looks for it again by itself."""
    return Hindrance(
        "False", ClusterReason.SECRET_MISSING, f"{pool.missing_secret}; it goes on by itself once it is there"
    )


def _no_node(groups: list[Worker], pool: PoolSeen) -> Hindrance | None:
    """Every group it may run in asks for something that no node has."""
    have = pool.node_resources
    if have is None or not groups or any(not group.device_resource for group in groups):
        return None
    if any(have.get(group.device_resource) or pool.workers.get(group.name) for group in groups):
        return None
    wanted = " or ".join(f"{group.device_resource} (group {group.name})" for group in groups)
    offered = ", ".join(f"{name} ({count})" for name, count in sorted(have.items()) if count) or "none"
    return Hindrance(
        "False",
        ClusterReason.NO_NODE_WITH_RESOURCE,
        f"needs {wanted}, and no node of the cluster has any; nodes have: {offered}; {_what_would_help(groups)}; "
        "it goes on by itself once a node advertises it",
    )


def _what_would_help(groups: list[Worker]) -> str:
    if any(group.device_resource.startswith(MIG_RESOURCE) for group in groups):
        profile = next(group.mig_profile for group in groups if group.mig_profile)
        return (
            f"partition a card into {profile} and run NVIDIA's device plugin with MIG strategy mixed, "
            "or ask for spec.gpu.memory on a group that nodes have"
        )
    return (
        "add a node with it (and its device plugin, which advertises it), "
        "or choose a pool or group whose resource nodes have"
    )


def of_pods(pods: Iterable[PodSeen]) -> Hindrance | None:
    """The first pod that is not as it should be, in the words of Kubernetes."""
    for pod in pods:
        if not pod.reason:
            continue
        said = f"pod {pod.name}: {pod.reason}" + (f": {pod.message}" if pod.message else "")
        if pod.reason in NO_IMAGE:
            return Hindrance(
                "False",
                ClusterReason.IMAGE_PULL_FAILED,
                f"{said}; check image name and tag, and the pull Secret (values image.serving, imagePullSecrets)",
            )
        if pod.reason in _REFUSED:
            return Hindrance(
                "False",
                ClusterReason.POD_REFUSED,
                f"{said}; raise the quota, or change what the namespace admits (kubectl describe quota, limitrange)",
            )
        if pod.reason == "Unschedulable":
            return Hindrance(
                "False", Reason.POD_PENDING, f"{said}; it waits for a node with room: free one, add one, or lower max"
            )
        return Hindrance("False", ClusterReason.POD_FAILING, f"{said}; see: kubectl describe pod {pod.name}")
    return None
