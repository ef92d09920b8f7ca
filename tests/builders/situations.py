"""What an object must say of itself in a situation: conditions word by word, and the columns of `kubectl get`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.builders.kube import Kube, KubeError, Object, condition

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True)
class Said:
    """One condition. In `message`, `…` stands for what no test can know: names of pods, addresses, numbers."""

    type: str
    status: str
    reason: str
    message: str = "…"

    def differs(self, one: Object) -> str:
        found = condition(one, self.type)
        given = (found.get("status"), found.get("reason"))
        if given != (self.status, self.reason):
            return f"{self.type} is {given[0]} {given[1]}, not {self.status} {self.reason}: {found.get('message')}"
        if not re.fullmatch(re.escape(self.message).replace("…", ".*"), found["message"], re.DOTALL):
            return f"{self.type} says {found['message']!r}\n   and not {self.message!r}"
        return ""


@dataclass(frozen=True)
class Situation:
    name: str
    kind: str
    object: str
    said: tuple[Said, ...]
    namespace: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Some of `kubectl get`, by heading."""

    def differs(self, kube: Kube) -> str:
        """How the object is not as it must be; empty when it is."""
        try:
            one = kube.get(self.kind, self.object, self.namespace)
        except KubeError as error:
            return str(error)
        if one.get("status", {}).get("observedGeneration") != one["metadata"]["generation"]:
            return "its newest spec has not been looked at"
        wrong = [difference for said in self.said if (difference := said.differs(one))]
        shown = columns(kube, self.kind, self.object, self.namespace)
        wrong += [
            f"column {name} is {shown.get(name)!r}, not {value!r}"
            for name, value in self.columns.items()
            if shown.get(name) != value
        ]
        return "\n".join(wrong)


def columns(kube: Kube, kind: str, name: str, namespace: str = "") -> dict[str, str]:
    """What `kubectl get` shows of it."""
    table = kube.call("GET", kube.path(kind, name, namespace), accept=TABLE)
    heads = [one["name"] for one in table["columnDefinitions"]]
    return {
        head: "" if cell is None else str(cell) for head, cell in zip(heads, table["rows"][0]["cells"], strict=True)
    }
