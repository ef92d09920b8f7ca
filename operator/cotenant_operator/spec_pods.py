"""Fields of a GPUPool that are passed on to Kubernetes pods, checked as far as a typing mistake can be told. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from cotenant_operator.cluster_names import (
    AUTOSCALER_CONTAINER,
    CONDUCTOR_CONTAINER,
    HEAD_CONTAINER,
    WAIT_CONTAINER,
    WORKER_CONTAINER,
)
from cotenant_operator.near import hint

IN_A_CLUSTER = "Kubernetes only; no effect on one machine."
_OPAQUE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_QUANTITIES = {
    "type": "object",
    "maxProperties": 32,
    "additionalProperties": {"x-kubernetes-int-or-string": True},
}


def _opaque(description: str) -> dict[str, Any]:
    return {**_OPAQUE, "description": description}


_AFFINITY = {
    "nodeAffinity": _opaque("Rules about nodes, as in a pod's spec.affinity.nodeAffinity."),
    "podAffinity": _opaque("Pods to be near to, as in a pod's spec.affinity.podAffinity."),
    "podAntiAffinity": _opaque("Pods to be far from, as in a pod's spec.affinity.podAntiAffinity."),
}
_RESOURCES = {
    "requests": {**_QUANTITIES, "description": "What is set aside for a pod, such as cpu: 500m and memory: 4Gi."},
    "limits": {
        **_QUANTITIES,
        "description": "What a pod gets at most, such as memory: 16Gi. Not the group's resource.",
    },
}


def _containers(description: str) -> dict[str, Any]:
    """Names are looked at, everything else is Kubernetes' business."""
    name = {"type": "string", "maxLength": 63, "description": "Name of the container."}
    return {
        "type": "array",
        "maxItems": 64,
        "description": description,
        "items": {**_OPAQUE, "properties": {"name": name}},
    }


_POD_TEMPLATE = {
    "metadata": _opaque("Labels and annotations of the pods."),
    "spec": {
        **_opaque("Anything of a pod's spec; containers and volumes are merged by name."),
        "properties": {
            "containers": _containers("Changes of the pods' containers, and more of them."),
            "initContainers": _containers("Containers that run before the others."),
        },
    },
}
_TOLERATION = {
    "key": {"type": "string", "maxLength": 316, "description": "Key of the taint; every taint when absent."},
    "operator": {"type": "string", "maxLength": 16, "description": "Exists, or Equal (the default)."},
    "value": {"type": "string", "maxLength": 63, "description": "Value of the taint, with operator Equal."},
    "effect": {
        "type": "string",
        "maxLength": 32,
        "description": "NoSchedule, PreferNoSchedule or NoExecute; every effect when absent.",
    },
    "tolerationSeconds": {
        "type": "integer",
        "format": "int64",
        "description": "With effect NoExecute: how long a pod stays on a node that is tainted, seconds.",
    },
}


@dataclass(frozen=True, slots=True)
class Taken:
    """Names that a container of a `podTemplate` cannot have: another one of the pod has them."""

    list: Literal["containers", "initContainers"]
    names: tuple[str, ...]
    message: str

    def found(self, template: Mapping[str, Any]) -> str | None:
        """The first such name, as the path to it below `podTemplate`."""
        spec = template.get("spec")
        items = spec.get(self.list) if isinstance(spec, Mapping) else None
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, Mapping) and item.get("name") in self.names:
                return f"spec.{self.list}.{index}.name"
        return None


_NOT_FIRST = "is a container of these pods and runs beside others, not before them; give yours another name"
HEAD_TAKEN = (
    Taken(
        "containers",
        (AUTOSCALER_CONTAINER,),
        "is the container that KubeRay adds to the head; give yours another name (the resources of KubeRay's are "
        "the chart's pools.resources.autoscaler)",
    ),
    Taken("initContainers", (HEAD_CONTAINER, CONDUCTOR_CONTAINER, AUTOSCALER_CONTAINER), _NOT_FIRST),
)
_WAITS = "is the init container that KubeRay puts before each worker; give yours another name"
WORKER_TAKEN = (
    Taken("containers", (WAIT_CONTAINER,), _WAITS),
    Taken("initContainers", (WAIT_CONTAINER,), _WAITS),
    Taken("initContainers", (WORKER_CONTAINER,), _NOT_FIRST),
)


def _known(fields: Collection[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in fields:
                raise ValueError(f"has an unknown field {name!r}; {hint(name, fields)}")
        return value

    return check


def _shape(properties: dict[str, Any]) -> tuple[Any, Any]:
    schema = {"type": "object", "properties": properties}
    return AfterValidator(_known(list(properties))), WithJsonSchema(schema)


_TOLERATION_SHAPE = _shape(_TOLERATION)
Toleration = Annotated[dict[str, Any], _TOLERATION_SHAPE[0], _TOLERATION_SHAPE[1]]
NodeSelector = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=32, description="Labels that a node must have to run these pods. " + IN_A_CLUSTER),
]
Tolerations = Annotated[
    tuple[Toleration, ...],
    Field(max_length=32, description="Taints of nodes that these pods put up with. " + IN_A_CLUSTER),
]
_AFFINITY_SHAPE = _shape(_AFFINITY)
Affinity = Annotated[
    dict[str, Any],
    _AFFINITY_SHAPE[0],
    _AFFINITY_SHAPE[1],
    Field(description="Where these pods go, as a pod's spec.affinity. " + IN_A_CLUSTER),
]
RuntimeClassName = Annotated[
    str, Field(max_length=253, description="RuntimeClass of these pods, such as nvidia. " + IN_A_CLUSTER)
]
_RESOURCES_SHAPE = _shape(_RESOURCES)
Resources = Annotated[
    dict[str, Any],
    _RESOURCES_SHAPE[0],
    _RESOURCES_SHAPE[1],
    Field(description="CPU and memory of a pod: requests and limits, each a map of quantities. " + IN_A_CLUSTER),
]
_TEMPLATE_SHAPE = _shape(_POD_TEMPLATE)
PodTemplate = Annotated[
    dict[str, Any],
    _TEMPLATE_SHAPE[0],
    _TEMPLATE_SHAPE[1],
    Field(description="Strategic merge patch of the pods, applied last. " + IN_A_CLUSTER),
]
