"""Which changes of a status are Events: what a person who watches would want to know, once. Pure."""

from collections.abc import Mapping
from typing import Any

from cotenant_operator.actions import Tell
from cotenant_operator.dated import Status, condition
from cotenant_operator.kinds import Object
from cotenant_serving.contract import Reason

_QUIET = frozenset(
    {
        Reason.IDLE,
        Reason.WAKING,
        Reason.LOADING,
        Reason.FACTS_PENDING,
        Reason.CONDUCTOR_UNREACHABLE,
        Reason.POD_PENDING,
        Reason.NO_ROOM,
        "Sent",
        "HeadPending",
    }
)
"""Ordinary on the way: the conditions say them, no Event does."""


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
    if now["reason"] in _QUIET or condition(status, "Accepted").get("status") == "False":
        return None
    return Tell(live, "Warning", str(now["reason"]), str(now["message"]), "Serve")


def _rolling(live: Object, before: Mapping[str, Any], status: Status) -> Tell | None:
    was, now = condition(before, "Rolling"), condition(status, "Rolling")
    if not now or was.get("reason") == now["reason"]:
        return None
    if now["status"] == "True":
        return Tell(live, "Warning" if now["reason"] == "Stuck" else "Normal", now["reason"], now["message"], "Roll")
    if was.get("status") == "True":
        return Tell(live, "Normal", "Rolled", now["message"] or "all pods are as the pool says", "Roll")
    return None
