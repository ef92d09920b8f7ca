"""Fields of Kubernetes objects as plain dicts; what is absent is empty, never an error. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from cotenant_operator.kinds import Object

NO_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
"""Why a container waits whose image cannot be had."""


def at(item: object, *path: str) -> Any:
    """The value below these names; None when any of them is not there."""
    value: Any = item
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def name_of(item: Object) -> str:
    return str(at(item, "metadata", "name") or "")


def namespace_of(item: Object) -> str:
    return str(at(item, "metadata", "namespace") or "")


def full_name(item: Object) -> str:
    """`namespace/name`, or `name` of what is in none."""
    return "/".join(filter(None, (namespace_of(item), name_of(item))))


def labels_of(item: Object) -> Mapping[str, str]:
    found = at(item, "metadata", "labels")
    return found if isinstance(found, Mapping) else {}


def items_at(item: Object, *path: str) -> list[Object]:
    """A list of objects; empty when it is not there."""
    found = at(item, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def condition(item: Object, type: str) -> Object:
    """One of `status.conditions`; empty when it is not there."""
    return next((one for one in items_at(item, "status", "conditions") if one.get("type") == type), {})


def number_at(item: Object, *path: str) -> int:
    """A whole number, also where it stands as text; 0 when it is neither."""
    try:
        return int(at(item, *path) or 0)
    except (TypeError, ValueError):
        return 0


def instant(text: object) -> float | None:
    """`2026-11-26T10:11:12Z` → Unix seconds; None for what is no time."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def time_of(event: Object) -> float:
    """Unix seconds of its last occurrence; 0 when nobody knows."""
    paths = (("lastTimestamp",), ("series", "lastObservedTime"), ("eventTime",), ("metadata", "creationTimestamp"))
    for text in (at(event, *path) for path in paths):
        if text and (found := instant(text)) is not None:
            return found
    return 0.0


def container_states(pod: Object) -> Iterator[tuple[str, Object]]:
    """(container, its status) of all containers of a pod, init containers first."""
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in items_at(pod, "status", kind):
            yield str(status.get("name") or ""), status


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


def tolerated(taint: Object, tolerations: Sequence[Object]) -> bool:
    """As the scheduler decides."""
    for item in tolerations:
        if item.get("effect") not in (None, "", taint.get("effect")):
            continue
        if item.get("operator") == "Exists":
            if item.get("key") in (None, "", taint.get("key")):
                return True
        elif item.get("key") == taint.get("key") and (item.get("value") or "") == (taint.get("value") or ""):
            return True
    return False
