"""Objects of a cluster → the input of a plan. Pure but for its memory: what did not change is not checked again."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from cotenant_operator.kinds import MODELS, POOLS, TENANTS, Key, Kind, Object
from cotenant_operator.objects import Manifests, ObjectKey
from cotenant_operator.positions import Document
from cotenant_operator.problems import problems_of
from cotenant_operator.schema import Metadata
from cotenant_operator.spec import GPUPool, ModelDeployment, Secret, Tenant

Spec = TypeVar("Spec", bound=BaseModel)
Print = tuple[str, int]
"""(uid, generation): a spec with the same print is the same spec."""


@dataclass(frozen=True, slots=True)
class Read(Generic[Spec]):
    """The objects of one kind that can be used, and what is wrong with each of the others."""

    specs: tuple[Spec, ...] = ()
    problems: Mapping[Key, str] = field(default_factory=dict)


class SpecReader(Generic[Spec]):
    """One kind's objects → specs. What the API server's schema let through and ours refuses is a problem of that
    object alone: an older or newer CRD may be installed.
    """

    def __init__(self, model: type[Spec]) -> None:
        self._model = model
        self._known: dict[Key, tuple[Print, Spec | str]] = {}

    def read(self, objects: Mapping[Key, Object]) -> Read[Spec]:
        """Those that are not being deleted, in the order of their names."""
        specs: list[Spec] = []
        problems: dict[Key, str] = {}
        known: dict[Key, tuple[Print, Spec | str]] = {}
        for key in sorted(objects):
            item = objects[key]
            metadata = item["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            now: Print = (metadata["uid"], metadata.get("generation", 0))
            before = self._known.get(key)
            known[key] = before if before is not None and before[0] == now else (now, self._check(item))
            result = known[key][1]
            if isinstance(result, str):
                problems[key] = result
            else:
                specs.append(result)
        self._known = known
        return Read(tuple(specs), problems)

    def _check(self, item: Object) -> Spec | str:
        metadata = {name: item["metadata"][name] for name in ("name", "namespace") if name in item["metadata"]}
        value = {
            "apiVersion": item.get("apiVersion"),
            "kind": item.get("kind"),
            "metadata": metadata,
            "spec": item.get("spec"),
        }
        try:
            return self._model.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            found = problems_of(error, self._model, Document(value, 0, {}, {}), "")
            return "; ".join(f"{problem.field}: {problem.message}" for problem in found)


@dataclass(frozen=True, slots=True)
class ClusterManifests:
    manifests: Manifests
    problems: Mapping[ObjectKey, str] = field(default_factory=dict)
    """What is wrong with objects that cannot be used; they are not in `manifests`."""


class ManifestReader:
    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._models = SpecReader(ModelDeployment)
        self._tenants = SpecReader(Tenant)
        self._pools = SpecReader(GPUPool)

    def tenants(self, tenants: Mapping[Key, Object]) -> tuple[Tenant, ...]:
        return self._tenants.read(tenants).specs

    def pools(self, pools: Mapping[Key, Object]) -> tuple[GPUPool, ...]:
        return self._pools.read(pools).specs

    def read(
        self,
        *,
        models: Mapping[Key, Object],
        tenants: Mapping[Key, Object],
        pools: Mapping[Key, Object],
        secrets: Iterable[Object],
    ) -> ClusterManifests:
        read_models, read_tenants = self._models.read(models), self._tenants.read(tenants)
        read_pools = self._pools.read(pools)
        manifests = Manifests(
            models=read_models.specs,
            tenants=read_tenants.specs,
            pools=read_pools.specs,
            secrets=tuple(self._secret(item) for item in secrets),
            namespace=self._namespace,
            created={
                (MODELS.kind, *key): item["metadata"].get("creationTimestamp", "") for key, item in models.items()
            },
        )
        problems: dict[ObjectKey, str] = {}
        for kind, found in (
            (MODELS, read_models.problems),
            (TENANTS, read_tenants.problems),
            (POOLS, read_pools.problems),
        ):
            problems |= _named(kind, found)
        return ClusterManifests(manifests, problems)

    def _secret(self, item: Object) -> Secret:
        """Keys whose value is no text are left out: a Secret may hold more than the keys of tenants."""
        data: dict[str, str] = item.get("data") or {}
        readable = {name: value for name, value in data.items() if _is_text(value)}
        # Not checked: the name of a Secret may be longer than ours may.
        metadata = Metadata.model_construct(name=item["metadata"]["name"], namespace=self._namespace)
        return Secret.model_construct(metadata=metadata, data=readable)


def sources_of(models: Mapping[Key, Object], specs: Iterable[ModelDeployment]) -> dict[str, str]:
    """`spec.model` → what to read its facts from: the commit in the status of its models, so that a branch that moved
    while no operator ran restarts nothing; else the source itself.
    """
    found: dict[str, str] = {}
    for spec in specs:
        source = spec.spec.model
        if source is None:
            continue
        item = models.get((spec.metadata.namespace, spec.metadata.name), {})
        pinned = _resolved(item) if source.startswith("hf://") else None
        if pinned or source not in found:
            found[source] = pinned or source
    return found


def _resolved(item: Object) -> str | None:
    status = item.get("status") or {}
    current = status.get("observedGeneration") == item.get("metadata", {}).get("generation")
    resolved = status.get("source")
    return resolved if current and isinstance(resolved, str) and resolved.startswith("hf://") else None


def _named(kind: Kind, problems: Mapping[Key, str]) -> dict[ObjectKey, str]:
    return {(kind.kind, *key): message for key, message in problems.items()}


def _is_text(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return False
    return True
