"""What applying files would change in a cluster: its objects with the files' laid over them, and each object's fate.

Pure. Secrets of the cluster are not read: keys that Tenants name are taken as usable.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cotenant_operator.objects import Manifests, ObjectKey
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.planned import ModelPlan, Plan
from cotenant_operator.render.pool_template import compare
from cotenant_operator.render.raycluster import pool_template
from cotenant_operator.schema import Metadata
from cotenant_operator.spec import GPUPool, ModelDeployment, Secret, Tenant

Fate = Literal["new", "edited", "unchanged"]
Object = ModelDeployment | Tenant | GPUPool
_COLUMNS = ("KIND", "NAME", "CHANGE", "EFFECT")


@dataclass(frozen=True, slots=True)
class Change:
    kind: str
    name: str
    """`namespace/name`, or `name`."""
    fate: Fate
    effect: str
    place: str
    """`FILE:LINE`."""


def in_namespace(files: Manifests, namespace: str) -> Manifests:
    """As `kubectl apply -n` does it: models that name no namespace go into this one."""
    moved: dict[ObjectKey, str] = dict(files.places)
    models = []
    for model in files.models:
        if "namespace" not in model.metadata.model_fields_set:
            name = model.metadata.name
            place = moved.pop((model.kind, model.metadata.namespace, name), "")
            model = model.model_copy(update={"metadata": Metadata(name=name, namespace=namespace)})  # noqa: PLW2901
            moved[model.kind, namespace, name] = place
        models.append(model)
    return replace(files, models=tuple(models), places=moved)


def laid_over(cluster: Manifests, files: Manifests) -> Manifests:
    """The cluster's objects as they would be; with Secrets for all keys, so that none is called missing."""
    merged = replace(
        cluster,
        models=_over(cluster.models, files.models),
        tenants=_over(cluster.tenants, files.tenants),
        pools=_over(cluster.pools, files.pools),
        places=files.places,
    )
    return replace(merged, secrets=_stand_ins(merged))


def _over(cluster: Sequence[Any], files: Sequence[Any]) -> tuple[Any, ...]:
    found = {_key(item): item for item in cluster} | {_key(item): item for item in files}
    return tuple(found[key] for key in sorted(found))


def _key(item: Object) -> tuple[str, str]:
    return getattr(item.metadata, "namespace", ""), item.metadata.name


def _stand_ins(manifests: Manifests) -> tuple[Secret, ...]:
    """A Secret for each that a Tenant names, in which each key is another."""
    fields: dict[str, dict[str, str]] = {}
    for tenant in manifests.tenants:
        for reference in (item.secret_ref for item in tenant.spec.keys):
            value = f"{reference.name}.{reference.key}".ljust(64, "-").encode()
            fields.setdefault(reference.name, {})[reference.key] = base64.b64encode(value).decode()
    return tuple(
        Secret.model_construct(
            metadata=Metadata.model_construct(name=name, namespace=manifests.namespace), data=data, string_data={}
        )
        for name, data in fields.items()
    )


def changes(files: Manifests, cluster: Manifests, before: Plan, after: Plan) -> list[Change]:
    """What becomes of each object of the files. The plans are those without and with them."""
    found = []
    items: list[Object] = [*files.pools, *files.tenants, *files.models]
    for item in items:
        old = _there(cluster, item)
        fate: Fate = "new" if old is None else "unchanged" if old.spec == item.spec else "edited"
        effect = _effect(old, item, before, after) if fate != "unchanged" else "nothing"
        namespace, name = _key(item)
        place = files.place(item.kind, name, namespace)
        found.append(Change(item.kind, "/".join(filter(None, (namespace, name))), fate, effect, place))
    return found


def _there(cluster: Manifests, item: Object) -> Object | None:
    group: Sequence[Object] = cluster.models
    if isinstance(item, GPUPool):
        group = cluster.pools
    elif isinstance(item, Tenant):
        group = cluster.tenants
    return next((one for one in group if _key(one) == _key(item)), None)


def _effect(old: Object | None, new: Object, before: Plan, after: Plan) -> str:
    if isinstance(new, GPUPool):
        return pool_effect(old if isinstance(old, GPUPool) else None, new)
    if isinstance(new, Tenant):
        return "gateways take it within seconds; no pod is replaced"
    if isinstance(old, ModelDeployment) and old.spec.pool != new.spec.pool:
        return (
            f"refused by the API server: spec.pool cannot be changed (it is {old.spec.pool}); "
            "delete the model and make it again, or give it another name"
        )
    engine, earlier = _planned(after, new.full_name), _planned(before, new.full_name)
    if engine is None or engine.engine is None:
        return "refused: what ran before serves on" if old else "refused"
    if old is None:
        return "its first engine starts with the first request" if not engine.min_engines else "engines start now"
    if earlier is None or earlier.engine is None or earlier.engine.revision != engine.engine.revision:
        return "a new revision: the old one serves until an engine of the new one is ready"
    return "in place: no engine is replaced"


def pool_effect(old: GPUPool | None, new: GPUPool) -> str:
    """Applied in place, or with new pods: the operator's own settings are the same on both sides."""
    settings = OperatorSettings()
    if old is None:
        return "a RayCluster is made for it"
    change = compare(pool_template(old, settings), pool_template(new, settings))
    if change.new_pods:
        return (
            f"needs new pods ({', '.join(change.new_pods)}): a second RayCluster is made and takes over, "
            "then the first one drains and goes"
        )
    if change.new_groups:
        return f"in place: group {', '.join(change.new_groups)} is added; no pod is replaced"
    return "in place: no pod is replaced"


def concerned(files: Manifests, before: Plan, after: Plan) -> Plan:
    """The models of the files, and those of the cluster whose verdict or share would be another."""
    names = {model.full_name for model in files.models}
    earlier = {model.name: model for model in before.models}
    pools = tuple(
        replace(pool, models=tuple(m for m in pool.models if m.name in names or _differs(earlier.get(m.name), m)))
        for pool in after.pools
    )
    tenants = {tenant.metadata.name for tenant in files.tenants}
    seen = tuple(
        tenant
        for tenant in after.tenants
        if tenant.name in tenants or any(model.name in tenant.models for pool in pools for model in pool.models)
    )
    told = set(before.warnings)
    return replace(after, pools=pools, tenants=seen, warnings=tuple(w for w in after.warnings if w not in told))


def _differs(old: ModelPlan | None, new: ModelPlan) -> bool:
    return old is not None and (old.refusal != new.refusal or old.engine != new.engine)


def _planned(plan: Plan, name: str) -> ModelPlan | None:
    return next((model for model in plan.models if model.name == name), None)


def change_rows(found: Iterable[Change]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return _COLUMNS, [(change.kind, change.name, change.fate, change.effect) for change in found]


def change_document(found: Iterable[Change]) -> list[Mapping[str, str]]:
    return [
        {
            "kind": change.kind,
            "name": change.name,
            "change": change.fate,
            "effect": change.effect,
            "place": change.place,
        }
        for change in found
    ]
