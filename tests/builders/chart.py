"""The chart as tests see it: objects that helm renders, and who may reach whom by its NetworkPolicies."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.golden_chart.situations import CHART, template

Object = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A pod, as far as policies look at it."""

    labels: Mapping[str, str]
    namespace: str = "cotenant-system"
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def rendered(*arguments: str, **where: str) -> list[Object]:
    return list(yaml.safe_load_all(template(*arguments, **where)))


def notes(folder: Path, *arguments: str) -> str:
    """What helm says after an install, which `helm template` leaves out: of a copy of the chart in `folder`."""
    chart = shutil.copytree(CHART, folder / "chart")
    said = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "said.yaml").write_text(
        f'{{{{- define "said" -}}}}{said}{{{{- end -}}}}said: {{{{ include "said" . | toJson }}}}'
    )
    (found,) = rendered("--show-only", "templates/said.yaml", *arguments, chart=str(chart))
    return str(found["said"])


def one(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The only one."""
    (found,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def pod_specs(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Name → spec of every pod that the objects are or make."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item["spec"]
        elif item["kind"] == "Deployment":
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def may_reach(
    objects: Sequence[Object], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """By every policy of both namespaces, as Kubernetes adds them up: both ends must allow it."""
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    return _allows(policies, "Ingress", target, source, port, protocol) and _allows(
        policies, "Egress", source, target, port, protocol
    )


def _allows(
    policies: Sequence[Object], direction: str, pod: Endpoint, peer: Endpoint, port: int, protocol: str
) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return not selecting or any(
        _to_port(rule, port, protocol) and _to_peer(rule.get(peers), pod, peer)
        for spec in selecting
        for rule in spec.get(rules, ())
    )


def _to_port(rule: Object, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(
        item.get("protocol", "TCP") == protocol and item["port"] <= port <= item.get("endPort", item["port"])
        for item in ports
    )


def _to_peer(peers: Sequence[Object] | None, pod: Endpoint, peer: Endpoint) -> bool:
    return not peers or any(_is_peer(item, pod, peer) for item in peers)


def _is_peer(item: Object, pod: Endpoint, peer: Endpoint) -> bool:
    if "ipBlock" in item:
        return False  # addresses outside
    namespaces = item.get("namespaceSelector")
    here = pod.namespace == peer.namespace if namespaces is None else _selects(namespaces, peer.namespace_labels)
    return here and _selects(item.get("podSelector") or {}, peer.labels)


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    exact = all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items())
    return exact and all(_holds(item, labels) for item in selector.get("matchExpressions") or ())


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    return {
        "Exists": value is not None,
        "DoesNotExist": value is None,
        "In": value in expression.get("values", ()),
        "NotIn": value not in expression.get("values", ()),
    }[expression["operator"]]
