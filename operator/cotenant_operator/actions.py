"""What a pass wants done in the cluster, as values; and whether an object is as wanted already. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cotenant_operator.dated import Status
from cotenant_operator.kinds import Kind, Object
from cotenant_operator.quantity import amount
from cotenant_serving.contract import Desired


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of the whole of what is ours. With a `resourceVersion`: only if nobody wrote meanwhile."""

    kind: Kind
    item: Object


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge patch of what no apply may own."""

    kind: Kind
    namespace: str
    name: str
    patch: Object


@dataclass(frozen=True, slots=True)
class Remove:
    """`grace_s`: how long a pod may take; None: as it says itself."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    grace_s: int | None = None


@dataclass(frozen=True, slots=True)
class SetStatus:
    """`live` is the object that the status is about."""

    kind: Kind
    live: Object
    status: Status


@dataclass(frozen=True, slots=True)
class Put:
    """Tell a conductor; `desired.generation` is a floor, the sender takes a higher one where needed."""

    cluster: str
    desired: Desired


@dataclass(frozen=True, slots=True)
class Tell:
    """An Event: what a person would want to know, once."""

    regarding: Object
    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    action: str = "Reconcile"


Write = Apply | Merge | Remove


@dataclass(frozen=True, slots=True)
class Actions:
    """In the order in which they are carried out."""

    events: tuple[Tell, ...] = ()
    writes: tuple[Write, ...] = ()
    puts: tuple[Put, ...] = ()
    statuses: tuple[SetStatus, ...] = ()
    follow: Mapping[str, str] = field(default_factory=dict)
    """RayCluster → base URL of its conductor: those to be looked at."""
    routed: tuple[str, ...] | None = None
    """Conductors that gateways are to follow, base URLs; None: as before."""
    again_s: float | None = None
    faults: tuple[Exception, ...] = ()
    """Mistakes of ours, each about one object: the others are decided all the same."""


_WHOLE = frozenset({"selector", "podSelector", "namespaceSelector"})
"""One key more, and a selector means other pods: as for Kubernetes itself, such a map is one value."""


_AMOUNTS = frozenset({"requests", "limits"})
"""Of resources: the API server writes `0.1` as `100m` and `1024Mi` as `1Gi`."""


def covers(live: Any, wanted: Any) -> bool:
    """Every field of `wanted` is in `live` with its value; `live` may have more fields, but no longer lists.

    As the API server keeps values: it leaves out an empty `value` of the environment, and has a spelling of its
    own for quantities.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(_covers_field(live, name, value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(covers(one, other) for one, other in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _covers_field(live: Mapping[str, Any], name: str, value: Any) -> bool:
    if name in _WHOLE:
        return name in live and bool(live[name] == value)
    if name in _AMOUNTS and isinstance(value, dict):
        have = live.get(name)
        return isinstance(have, dict) and all(of in have and _same_amount(have[of], value[of]) for of in value)
    return covers(live[name], value) if name in live else (name, value) == ("value", "")


def _same_amount(live: Any, wanted: Any) -> bool:
    return bool(live == wanted) or (amount(live) is not None and amount(live) == amount(wanted))


def status_differs(live: Mapping[str, Any] | None, wanted: Status) -> bool:
    """Conditions of other managers, and fields that are not in `wanted`, are not ours."""
    have = live or {}
    for name, value in wanted.items():
        if name == "conditions":
            by_type = {item.get("type"): item for item in have.get("conditions") or ()}
            if any(by_type.get(item["type"]) != item for item in value):
                return True
        elif have.get(name) != value:
            return True
    return False


def changed_status(kind: Kind, live: Object, status: Status) -> tuple[SetStatus, ...]:
    """What writes it; nothing where it stands already."""
    return (SetStatus(kind, live, status),) if status_differs(live.get("status"), status) else ()
