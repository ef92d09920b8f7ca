"""Pods that have a node and do not begin there. Pure."""

from collections.abc import Iterable

from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import at, condition, instant

STUCK_S = 120.0
"""What attaching and mounting volumes may take; kubelet itself complains after as long."""


def stuck(pod: Object, now_s: float) -> str:
    """What such a pod waits for, for people; empty for any other. Kubernetes tells the cause in Events alone."""
    due_s = _due_s(pod)
    if due_s is None or now_s < due_s:
        return ""
    return (
        f"on node {at(pod, 'spec', 'nodeName')} its volumes or its network have not been ready for over "
        f"{STUCK_S / 60:.0f} minutes, as where that node has no folder spec.cache.path of the GPUPool, or a claim or "
        "Secret is missing"
    )


def next_stuck_s(pods: Iterable[Object], now_s: float) -> float | None:
    """Seconds until the next of them is; None when none will be."""
    due = (due_s - now_s for pod in pods if (due_s := _due_s(pod)) is not None)
    return min((wait_s for wait_s in due if wait_s > 0), default=None)


def _due_s(pod: Object) -> float | None:
    """Unix seconds from which it is stuck. While an image is pulled it has its volumes: that may take long."""
    scheduled = condition(pod, "PodScheduled")
    if pod["metadata"].get("deletionTimestamp") or at(pod, "status", "phase") != "Pending":
        return None
    if scheduled.get("status") != "True" or condition(pod, "PodReadyToStartContainers").get("status") != "False":
        return None
    since_s = instant(scheduled.get("lastTransitionTime"))
    return None if since_s is None else since_s + STUCK_S
