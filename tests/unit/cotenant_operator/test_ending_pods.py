"""When the grace of a worker pod that ends is shortened: never while an engine may live there."""

from typing import Any

import msgspec
import pytest

from cotenant_operator.actions import Merge, Remove, Write
from cotenant_operator.ending_pods import EMPTY_S, HURRIED_GRACE_S, ending_worker_writes, next_look_s
from cotenant_operator.instants import utc
from cotenant_operator.kinds import PODS, Object
from cotenant_operator.pool_world import NODE_TYPE_LABEL, RAY_GROUP_LABEL
from cotenant_serving.contract import PoolStatus

ASKED_S = 1_795_730_000.0
GRACE_S = 930
LATER_S = ASKED_S + EMPTY_S + 1
LISTENING = PoolStatus(pool="default", epoch="e", generation=1, reconciled=True, pods_with_engines=("other",))
HURRIED = Remove(PODS, "ours", "goes", "uid-goes", grace_s=HURRIED_GRACE_S)


def ending(*, phase: str = "Running", node_type: str = "worker", grace_s: int = GRACE_S, **labels: str) -> Object:
    item = PODS.new("goes", "ours", status={"phase": phase})
    item["metadata"] |= {
        "uid": "uid-goes",
        "labels": {NODE_TYPE_LABEL: node_type, **labels},
        "deletionTimestamp": utc(ASKED_S + grace_s),
        "deletionGracePeriodSeconds": grace_s,
    }
    return item


def writes(pod: Object, said: PoolStatus | None = LISTENING, now_s: float = LATER_S) -> list[Write]:
    return list(ending_worker_writes([pod], said, now_s))


def but(**changed: Any) -> PoolStatus:
    return msgspec.structs.replace(LISTENING, **changed)


def test_a_pod_from_which_no_engine_has_spoken_for_a_minute_ends_soon() -> None:
    assert writes(ending()) == [HURRIED]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "its conductor does not answer"),
        (but(reconciled=False), "its conductor has not compared its state with Serve's"),
        (but(pods_with_engines=None), "its conductor has just begun to listen, or is of an older version"),
        (but(pods_with_engines=("goes", "other")), "an engine speaks from there: its requests may still run"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_a_pod_keeps_its_grace_while_an_engine_may_live_there(said: PoolStatus | None, why: str) -> None:
    assert writes(ending(), said) == [], why


def test_ray_has_a_minute_to_end_it_by_itself() -> None:
    assert writes(ending(), now_s=ASKED_S + EMPTY_S - 1) == []
    assert next_look_s([ending()], LISTENING, ASKED_S + 20) == pytest.approx(EMPTY_S - 20, abs=1)


def test_it_is_hurried_once() -> None:
    hurried = ending(grace_s=HURRIED_GRACE_S)
    assert writes(hurried) == []
    assert next_look_s([hurried], LISTENING, ASKED_S) is None


@pytest.mark.parametrize("pod", [ending(node_type="head"), ending(phase="Succeeded"), ending(phase="Failed")])
def test_heads_and_what_has_ended_are_left_alone(pod: Object) -> None:
    assert writes(pod) == []
    assert next_look_s([pod], LISTENING, ASKED_S) is None


def test_a_pod_that_lives_is_left_alone() -> None:
    pod = PODS.new("lives", "ours", status={"phase": "Running"})
    pod["metadata"]["labels"] = {NODE_TYPE_LABEL: "worker", RAY_GROUP_LABEL: "cpu"}
    assert writes(pod) == []


def test_a_pod_is_let_out_of_kuberays_sight_first() -> None:
    (write,) = writes(ending(**{RAY_GROUP_LABEL: "cpu"}))
    assert isinstance(write, Merge)
