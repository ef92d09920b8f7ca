"""Which changes of a status are Events: what a person who watches would want to know, once. Pure."""

from collections.abc import Mapping
from typing import Any

from cotenant_operator.actions import Tell
from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.dated import Status, condition
from cotenant_operator.kinds import MODELS, Object
from cotenant_operator.status import FILES
from cotenant_serving.contract import Reason

_FAILURES = FILES | {
    Reason.NO_CUDA_DEVICE,
    Reason.NO_DEVICE,
    Reason.NO_NODE,
    Reason.LOAD_FAILED,
    Reason.ENGINE_DIED,
    Reason.MEMORY_EXCEEDED,
    ClusterReason.GATEWAYS_FULL,
}
"""A model's own. What holds up a whole pool is an Event of the pool, not of each of its thousand models."""
_ON_THE_WAY = frozenset({Reason.CONDUCTOR_UNREACHABLE, ClusterReason.HEAD_PENDING, ClusterReason.SENT})


def events_of(live: Object, status: Status) -> tuple[Tell, ...]:
    """`live` is the object with its status before, `status` the one that is written now."""
    before: Mapping[str, Any] = live.get("status") or {}
    found = [
        _refused(live, before, status),
        _ready(live, before, status),
        _rolling(live, before, status),
    ]
    return tuple(event for event in found if event is not None)


def _refused(live: Object, before: Mapping[str, Any], status: Status) -> Tell | None:
    was, now = condition(before, "Accepted"), condition(status, "Accepted")
    if now.get("reason") == ClusterReason.NAME_TAKEN != was.get("reason"):
        return Tell(live, "Warning", str(now["reason"]), str(now["message"]), "Accept")
    if now.get("status") != "False" or (was.get("status"), was.get("reason")) == ("False", now.get("reason")):
        return None
    return Tell(live, "Warning", str(now["reason"]), str(now["message"]), "Accept")


def _ready(live: Object, before: Mapping[str, Any], status: Status) -> Tell | None:
    was, now = condition(before, "Ready"), condition(status, "Ready")
    if not now or (was.get("status"), was.get("reason")) == (now["status"], now["reason"]):
        return None
    if now["status"] == "True":
        first = was.get("status") != "True"
        return Tell(live, "Normal", str(now["reason"]), str(now["message"]), "Serve") if first else None
    model = live["kind"] == MODELS.kind
    if now["reason"] in _ON_THE_WAY or (model and now["reason"] not in _FAILURES):
        return None
    if condition(status, "Accepted").get("status") == "False":
        return None
    return Tell(live, "Warning", str(now["reason"]), str(now["message"]), "Serve")


def _rolling(live: Object, before: Mapping[str, Any], status: Status) -> Tell | None:
    was, now = condition(before, "Rolling"), condition(status, "Rolling")
    if not now or was.get("reason") == now["reason"]:
        return None
    if now["status"] == "True":
        return Tell(
            live,
            "Warning" if now["reason"] == ClusterReason.STUCK else "Normal",
            now["reason"],
            now["message"],
            "Roll",
        )
    if was.get("status") == "True":
        return Tell(live, "Normal", "Rolled", now["message"] or "all pods are as the pool says", "Roll")
    return None
