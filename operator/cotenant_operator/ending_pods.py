"""Worker pods that end: KubeRay is not to count them any more, and an empty one is not to end late.

A pod's grace is longer than its longest request. Ray ends a pod sooner once no process of an engine is left there;
but when its GCS restarted in the moment in which an engine was being made, it takes that process for dead and does
not end it: the pod, and the drain of its node, would last for all of the grace. Whether an engine lives is not Ray's
word here but its own: engines speak to the conductor twice a second until they have ended. Pure.
"""

from collections.abc import Iterable, Iterator

from cotenant_operator.actions import Merge, Remove, Write
from cotenant_operator.kinds import PODS, Object
from cotenant_operator.kube_objects import instant, labels_of
from cotenant_operator.pool_world import NODE_TYPE_LABEL, RAY_GROUP_LABEL, has_ended
from cotenant_serving.contract import PoolStatus

EMPTY_S = 60.0
"""Before a pod without engines that ends is hurried: Ray, and Serve's own time-outs, have had their time."""
HURRIED_GRACE_S = 5


def ending_worker_writes(pods: Iterable[Object], said: PoolStatus | None, now_s: float) -> Iterator[Write]:
    """`said`: what the conductor of their RayCluster answers now, if it does."""
    for pod in _ending_workers(pods):
        if RAY_GROUP_LABEL in labels_of(pod):
            yield _released(pod)
        elif _is_empty(pod, said) and now_s >= _hurried_from_s(pod):
            yield _hurried(pod)


def next_look_s(pods: Iterable[Object], said: PoolStatus | None, now_s: float) -> float | None:
    """Seconds until the next of them is hurried; None when none will be."""
    due = (_hurried_from_s(pod) - now_s for pod in _ending_workers(pods) if _is_empty(pod, said))
    return min((wait_s for wait_s in due if wait_s > 0), default=None)


def _is_empty(pod: Object, said: PoolStatus | None) -> bool:
    """No engine has spoken from there for as long as its conductor remembers, and not all of its grace is spent."""
    if said is None or said.pods_with_engines is None or not said.reconciled:
        return False
    metadata = pod["metadata"]
    hurried = metadata.get("deletionGracePeriodSeconds", 0) <= HURRIED_GRACE_S
    return not hurried and metadata["name"] not in said.pods_with_engines


def _ending_workers(pods: Iterable[Object]) -> Iterator[Object]:
    for pod in pods:
        ends = pod["metadata"].get("deletionTimestamp") and not has_ended(pod)
        if ends and labels_of(pod).get(NODE_TYPE_LABEL) == "worker":
            yield pod


def _hurried_from_s(pod: Object) -> float:
    """Unix seconds. Kubernetes states when the grace will be over, so it began that much earlier."""
    metadata = pod["metadata"]
    over_s = instant(metadata["deletionTimestamp"]) or 0.0
    return over_s - float(metadata.get("deletionGracePeriodSeconds", 0)) + EMPTY_S


def _released(pod: Object) -> Merge:
    """Out of KubeRay's sight: counted, it would keep its successor from coming until its last request has ended. (A
    ReplicaSet never counts such pods.)"""
    metadata = pod["metadata"]
    return Merge(PODS, metadata["namespace"], metadata["name"], {"metadata": {"labels": {RAY_GROUP_LABEL: None}}})


def _hurried(pod: Object) -> Remove:
    metadata = pod["metadata"]
    return Remove(PODS, metadata["namespace"], metadata["name"], metadata["uid"], grace_s=HURRIED_GRACE_S)
