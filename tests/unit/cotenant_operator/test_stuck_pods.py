"""Pods that have a node and do not begin there: Kubernetes says ContainerCreating, and why in its Events alone."""

from typing import Any

import pytest
from tests.builders import observed as see

from cotenant_operator.hindrance import of_pods
from cotenant_operator.instants import utc
from cotenant_operator.kinds import Object
from cotenant_operator.pool_world import pods_seen
from cotenant_operator.stuck_pods import STUCK_S, next_stuck_s

NOW_S = 1_795_730_000.0


def pod(*, since_s: float = STUCK_S + 1, ready: str | None = "False", **more: Any) -> Object:
    """On a node since so many seconds. `ready`: its volumes and network; None: this Kubernetes does not say."""
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": utc(NOW_S - since_s)}]
    conditions += [{"type": "PodReadyToStartContainers", "status": ready}] if ready else []
    waiting = {"name": "cache", "state": {"waiting": {"reason": "PodInitializing"}}}
    return {
        "metadata": {"name": "worker-0", "labels": {"ray.io/node-type": "worker", "cotenant.dev/group": "shared"}},
        "spec": {"nodeName": "node-2"},
        "status": {"phase": "Pending", "conditions": conditions, "initContainerStatuses": [waiting]},
        **more,
    }


def why(*pods: Object) -> str:
    (seen,) = pods_seen(pods, NOW_S)
    return f"{seen.reason}: {seen.message}" if seen.reason else ""


def test_a_pod_whose_volumes_do_not_come_says_on_which_node_and_what_to_look_for() -> None:
    assert why(pod()).startswith("ContainerCreating: on node node-2 its volumes or its network")
    assert "spec.cache.path" in why(pod())
    hindrance = of_pods(pods_seen([pod()], NOW_S))
    assert hindrance is not None
    assert hindrance.reason == "PodFailing"
    assert hindrance.message.endswith("see: kubectl describe pod worker-0")


@pytest.mark.parametrize(
    "on_its_way",
    [
        pod(since_s=STUCK_S - 1),
        pod(ready="True"),  # it has its volumes, and pulls an image
        pod(ready=None),
        pod(status={"phase": "Running", "conditions": pod()["status"]["conditions"]}),
        pod(status={"phase": "Pending"}),
    ],
)
def test_a_pod_that_is_on_its_way_is_not_stuck(on_its_way: Object) -> None:
    assert why(on_its_way) == ""


def test_it_is_looked_at_again_when_the_first_one_becomes_stuck() -> None:
    assert next_stuck_s([pod(since_s=20), pod(since_s=50), pod(), pod(ready="True")], NOW_S) == pytest.approx(
        70, abs=1
    )
    assert next_stuck_s([pod(), pod(ready="True")], NOW_S) is None


def test_a_message_of_a_stuck_pod_stays_as_it_is() -> None:
    """Or its status would be written again and again."""
    first, later = (pods_seen([pod()], NOW_S + more_s) for more_s in (0, 1000))
    assert first == later
    assert see.pool_seen(pods=first) == see.pool_seen(pods=later)
