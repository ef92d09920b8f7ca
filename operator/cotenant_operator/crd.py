"""spec + status → CustomResourceDefinitions, as `kubectl explain` and the API server read them. Pure.

pydantic's JSON schema is brought into the form that Kubernetes calls structural: no `$ref`, no `anyOf` for what may
be absent, nothing that is not known; the rules of `crd_rules` are added where they belong.
"""

import copy
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cotenant_operator import crd_rules
from cotenant_operator.crd_rules import Rule
from cotenant_operator.quantity import show_seconds
from cotenant_operator.schema import DURATION, NAME, QUANTITY, SIZE
from cotenant_operator.spec import GPUPool, ModelDeployment, Tenant
from cotenant_operator.spec_status import GPUPoolStatus, ModelDeploymentStatus, TenantStatus

GROUP, VERSION = "cotenant.dev", "v1alpha1"
Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "enum",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "pattern",
)
_NO_DEFAULTS = frozenset({"Engine"})
"""Whether a field of these was given matters: those of another task than the model's are refused."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_REFERENCE = "#/$defs/"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crd:
    """One kind."""

    model: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short: str
    namespaced: bool = False
    scale: bool = False
    columns: tuple[Column, ...]


def _condition(type_: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE = Column("Age", ".metadata.creationTimestamp", "Since when it exists.", type="date")
_READY = Column("Ready", _condition("Ready"), "Whether it works now.")
_REASON = Column("Reason", _condition("Ready", "reason"), "Why.")
_MESSAGE = Column("Message", _condition("Ready", "message"), "Why, in words.", wide=True)

CRDS: tuple[Crd, ...] = (
    Crd(
        model=ModelDeployment,
        status=ModelDeploymentStatus,
        plural="modeldeployments",
        short="mdep",
        namespaced=True,
        scale=True,
        columns=(
            Column("Model", ".spec.model", "Where its files come from."),
            _READY,
            _REASON,
            Column("Replicas", ".status.replicas.summary", "Engines that answer / that it should have."),
            Column("Cached", ".status.cached.summary", "Nodes that have its files / all, and bytes; or whether."),
            Column("GPU", ".status.gpu.share", "What one engine gets of a device."),
            Column("URL", ".status.url", "Base URL of the OpenAI API."),
            _AGE,
            Column("Task", ".status.task", "What it is served for.", wide=True),
            Column("Revision", ".status.revision", "Revision that serves.", wide=True),
            Column("Target", ".status.targetRevision", "Revision of the spec.", wide=True),
            Column("Placed", _condition("Placed", "message"), "Devices of its engines.", wide=True),
            _MESSAGE,
        ),
    ),
    Crd(
        model=Tenant,
        status=TenantStatus,
        plural="tenants",
        short="tnt",
        columns=(
            _READY,
            _REASON,
            Column("Keys", ".status.keys", "API keys that work.", type="integer"),
            Column("Models", ".status.models", "Models that it sees.", type="integer"),
            _AGE,
            _MESSAGE,
        ),
    ),
    Crd(
        model=GPUPool,
        status=GPUPoolStatus,
        plural="gpupools",
        short="gpool",
        columns=(
            _READY,
            _REASON,
            Column("Rolling", _condition("Rolling", "reason"), "Whether it moves to another RayCluster."),
            Column("Pods", ".status.pods", "Worker pods that are ready / that there may be."),
            Column("Models", ".status.models.summary", "Models that answer / all."),
            _AGE,
            Column("RayCluster", ".status.rayClusters.active", "The one that serves.", wide=True),
            Column("Target", ".status.rayClusters.target", "The one that is as the spec says.", wide=True),
            _MESSAGE,
        ),
    ),
)


def render_crd(crd: Crd) -> dict[str, Any]:
    """The CustomResourceDefinition as plain JSON."""
    kind = crd.model.__name__
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": crd.plural,
        "singular": kind.lower(),
        "shortNames": [crd.short],
        "categories": ["cotenant"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{crd.plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "cotenant", "app.kubernetes.io/part-of": "cotenant"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if crd.namespaced else "Cluster",
            "names": names,
            "versions": [_version(crd)],
        },
    }


def _version(crd: Crd) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}}
    if crd.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas.min",
            "statusReplicasPath": ".status.replicas.ready",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": object_schema(crd)},
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in crd.columns],
    }


def _column(column: Column) -> dict[str, Any]:
    shown = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    return {**shown, "priority": 1} if column.wide else shown


def object_schema(crd: Crd) -> Schema:
    """Of the whole object."""
    spec = _Structure(crd.model).of("spec")
    about = (crd.model.__doc__ or "").strip()
    status = _Structure(crd.status).whole()
    return {
        "type": "object",
        "description": about,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {crd.model.__name__}."},
            "metadata": {"type": "object"},
            "spec": {**spec, "description": "What is wanted."},
            "status": status,
        },
        "x-kubernetes-validations": _rules(crd_rules.OBJECT),
    }


class _Structure:
    """The structural schema of one pydantic model, which owns the definitions that its references point to."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._schema = model.model_json_schema(by_alias=True)
        self._definitions: Schema = self._schema.get("$defs", {})

    def whole(self) -> Schema:
        return self._object(self._schema, self._schema["title"])

    def of(self, field: str) -> Schema:
        return self._field(self._schema["properties"][field], self._schema["title"], field)

    def _field(self, given: Schema, owner: str, name: str) -> Schema:
        """One property of the class `owner`, with its description, default and rules."""
        made = self._value(given)
        if "description" in given:
            made = {"description": given["description"], **made, **{"description": given["description"]}}
        default = _default(given, made, owner)
        if default is not None:
            made["default"] = default
        own = crd_rules.FIELDS.get((owner, name), ())
        if own:  # a pattern would be checked before it, and says less
            made.pop("pattern", None)
        rules = [*made.pop("x-kubernetes-validations", ()), *_rules(own)]
        if rules:
            made["x-kubernetes-validations"] = rules
        return made

    def _value(self, given: Schema) -> Schema:
        if "$ref" in given:
            name = given["$ref"].removeprefix(_REFERENCE)
            return self._object(self._definitions[name], name)
        if "anyOf" in given:
            (inner,) = (option for option in given["anyOf"] if option.get("type") != "null")
            extra = {name: value for name, value in given.items() if name.startswith("x-") or name in _KEPT}
            return self._value({**inner, **extra})
        if "const" in given:
            return {"type": given["type"]}
        if given.get("type") == "array":
            return {**_kept(given), "items": self._value(given["items"])}
        if given.get("type") == "object":
            return self._map(given)
        return _scalar(given)

    def _map(self, given: Schema) -> Schema:
        """An object that is no class of ours: a map, or what stands in its annotation as it is."""
        made = {name: value for name, value in given.items() if name not in ("default", "title")}
        made["x-kubernetes-map-type"] = "atomic"  # one writer's as a whole: see _default for what {} does otherwise
        if isinstance(made.get("additionalProperties"), dict):
            made["additionalProperties"] = self._value(made["additionalProperties"])
        return made

    def _object(self, given: Schema, name: str) -> Schema:
        made: Schema = {"type": "object"}
        if "description" in given:
            made["description"] = " ".join(given["description"].split())
        properties = {field: self._field(value, name, field) for field, value in given["properties"].items()}
        if given.get("required"):
            made["required"] = list(given["required"])
        made["properties"] = properties
        if name in crd_rules.CLASSES:
            made["x-kubernetes-validations"] = _rules(crd_rules.CLASSES[name])
        return made


def _kept(given: Schema) -> Schema:
    made = {name: given[name] for name in _KEPT if name in given}
    made |= {name: value for name, value in given.items() if name.startswith("x-kubernetes-")}
    return made


def _scalar(given: Schema) -> Schema:
    made = _kept(given)
    format_ = made.get("format")
    rules = list(crd_rules.FORMATS.get(format_ or "", ()))
    if format_ in (QUANTITY, SIZE, DURATION):
        made = {"x-kubernetes-int-or-string": True, "minimum": int(format_ == SIZE)}
    elif format_ == NAME:
        del made["format"]
    elif made.get("type") == "integer":
        made["format"] = "int64"
    if "exclusiveMinimum" in made:  # OpenAPI 3.0 has a flag, JSON schema a number; a rule says it in words
        del made["exclusiveMinimum"]
        made.pop("maximum", None)
    if rules:
        made["x-kubernetes-validations"] = _rules(rules)
    return made


def _default(given: Schema, made: Schema, owner: str) -> Any:
    """What the API server fills in: nothing for fields that may be absent, and no scalars and lists that are empty.

    An object of ours has `{}` at least: whoever has applied one of its fields (server-side) and applies `{}` next
    would be refused otherwise, for the API server makes null of what is left.
    """
    default: Any = given.get("default")
    if owner in _NO_DEFAULTS:
        return None
    if isinstance(default, dict) and "$ref" in given:  # rules of the object are held against its default as it stands
        if given["$ref"].removeprefix(_REFERENCE) in _NO_DEFAULTS:
            return {}
        fields = made["properties"].items()
        filled = {name: field["default"] for name, field in fields if field.get("default", {}) != {}}
        whole = filled.keys() >= {name for name, value in default.items() if value not in _EMPTY}
        return copy.deepcopy(filled) if whole else None
    if default in _EMPTY:
        return None
    inner = next((option for option in given.get("anyOf", ()) if "format" in option), given)
    return show_seconds(default) if inner.get("format") == DURATION else default


def _rules(rules: Any) -> list[dict[str, str]]:
    return [_rule(rule) for rule in rules]


def _rule(rule: Rule) -> dict[str, str]:
    entry = {"rule": rule.rule, "message": rule.message}
    if rule.field:
        entry["fieldPath"] = rule.field
    return entry
