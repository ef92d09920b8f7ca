"""Conditions as Kubernetes has them: with the generation they are about and the moment they came true. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from cotenant_operator.status import Condition

Status = dict[str, Any]
"""The `status` of an object, as plain JSON."""
MAX_MESSAGE = 2048


def dated(
    conditions: Iterable[Condition], previous: Mapping[str, Any] | None, *, generation: int, now: str
) -> list[dict[str, Any]]:
    """`now` is an instant such as `2026-11-26T10:11:12Z`; it stands where a condition's status has changed."""
    before = {item.get("type"): item for item in (previous or {}).get("conditions") or ()}
    return [_one(item, before.get(item.type, {}), generation, now) for item in conditions]


def _one(item: Condition, before: Mapping[str, Any], generation: int, now: str) -> dict[str, Any]:
    kept = before.get("lastTransitionTime") if before.get("status") == item.status else None
    return {
        "type": item.type,
        "status": item.status,
        "reason": str(item.reason),
        "message": _cut(item.message),
        "observedGeneration": generation,
        "lastTransitionTime": kept or now,
    }


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def condition(status: Mapping[str, Any] | None, type_: str) -> Mapping[str, Any]:
    """The condition of that type of an object's status; empty when it has none."""
    found = (item for item in (status or {}).get("conditions") or () if item.get("type") == type_)
    return next(found, {})
