"""What the pods of a pool are made from, as hashes: equal hashes need no new pods. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


class PoolTemplate(msgspec.Struct, frozen=True):
    """8 hex digits for what all pods share and the head is, and for each worker group."""

    head: str
    groups: Mapping[str, str]

    @property
    def hash(self) -> str:
        """8 hex digits of all of it: names a new RayCluster."""
        return digest([self.head, dict(sorted(self.groups.items()))])

    def to_json(self) -> str:
        return json.dumps({"head": self.head, "groups": dict(sorted(self.groups.items()))}, sort_keys=True)


def template_from_json(text: str) -> PoolTemplate | None:
    """What `to_json` wrote; None for anything else, such as an annotation that somebody edited."""
    try:
        return msgspec.json.decode(text, type=PoolTemplate)
    except msgspec.MsgspecError:
        return None


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """What must change for a RayCluster to be as wanted. All empty: nothing."""

    new_pods: tuple[str, ...] = ()
    """What needs new pods: `head`, `group NAME`, `group NAME is gone`."""
    new_groups: tuple[str, ...] = ()
    """Names of groups that are added in place."""


def compare(live: PoolTemplate | None, wanted: PoolTemplate) -> TemplateChange:
    """`live` None: nobody knows what its pods are made from, so that only new ones are sure to be as wanted."""
    if live is None:
        return TemplateChange(new_pods=("all of it: nothing says what its pods are made from",))
    new_pods = [] if live.head == wanted.head else ["head"]
    for name, made_from in live.groups.items():
        if name not in wanted.groups:
            new_pods.append(f"group {name} is gone")
        elif wanted.groups[name] != made_from:
            new_pods.append(f"group {name}")
    return TemplateChange(tuple(new_pods), tuple(name for name in wanted.groups if name not in live.groups))


def digest(value: Any) -> str:
    """8 hex digits of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
