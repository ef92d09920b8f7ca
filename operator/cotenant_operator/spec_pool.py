"""GPUPool (`cotenant.dev/v1alpha1`): the machines that models share. Part of the one source of the schema."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cotenant_operator.schema import ClusterMetadata, Count, DurationS, Name, SecretRef, Size, Spec, wrong
from cotenant_operator.spec_pods import (
    HEAD_TAKEN,
    IN_A_CLUSTER,
    WORKER_TAKEN,
    Affinity,
    NodeSelector,
    PodTemplate,
    Resources,
    RuntimeClassName,
    Taken,
    Tolerations,
)

MIG_RESOURCE = "nvidia.com/mig-"
MAX_WORKERS = 15
"""As many as the API server can check sizes of, by its own estimate of what that costs."""
_ADDRESS = re.compile(r"[^\s]*[^\s:]:[0-9]{1,5}")
_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def _namespace_or_star(value: str) -> str:
    if value != "*" and (not value or len(value) > 63):
        raise ValueError("must be the name of a namespace, or '*' for all")
    return value


def _resource(value: str) -> str:
    if value and not _RESOURCE.fullmatch(value):
        raise ValueError("must be an extended resource of Kubernetes, DOMAIN/NAME, such as nvidia.com/gpu")
    return value


def _idle_pod(value: float) -> float:
    if value < 10:
        raise ValueError("must be at least 10s, or pods go between two requests")
    return value


def _own_names(template: Mapping[str, Any], taken: Iterable[Taken]) -> None:
    for names in taken:
        if path := names.found(template):
            raise wrong(f"podTemplate.{path}", names.message)


class Worker(Spec):
    """One worker group: pods that each hold one GPU, one MIG slice, or CPU memory, which engines share."""

    name: Name = Field(description="Name of the group.")
    device: Literal["cpu", "cuda"] = Field(description="cpu or cuda. Nothing falls back from one to the other.")
    resource: Annotated[str, Field(max_length=253), AfterValidator(_resource)] = Field(
        default="",
        description="Kubernetes resource of one device, which each pod asks for; default nvidia.com/gpu for cuda, "
        "none for cpu. No effect on one machine.",
    )
    memory: Size = Field(description="What one unit of resource may use, a quantity such as 80Gi.")
    sharing: Literal["timeSlice", "mig"] = Field(
        default="timeSlice", description="timeSlice: cooperative. mig: one MIG slice, walled by hardware."
    )
    min: Count = Field(default=0, description="Pods kept. " + IN_A_CLUSTER)
    max: Annotated[Count, Field(ge=1)] = Field(default=1, description="Pods at most; on one machine, GPUs at most.")
    node_selector: NodeSelector = Field(default={})
    tolerations: Tolerations = ()
    affinity: Affinity = Field(default={})
    runtime_class_name: RuntimeClassName = ""
    resources: Resources = Field(default={})
    pod_template: PodTemplate = Field(default={})

    @property
    def device_resource(self) -> str:
        return self.resource or ("nvidia.com/gpu" if self.device == "cuda" else "")

    @property
    def mig_profile(self) -> str | None:
        """`1g.10gb` for `nvidia.com/mig-1g.10gb`; None for a group that is not MIG slices."""
        resource = self.device_resource
        return resource.removeprefix(MIG_RESOURCE) if resource.startswith(MIG_RESOURCE) else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.sharing == "mig") != (self.mig_profile is not None):
            raise wrong(
                "sharing",
                f"does not match the resource: sharing mig goes with {MIG_RESOURCE}<profile>, and only with it",
            )
        if self.min > self.max:
            raise wrong("min", f"is above max {self.max}; raise max or lower min")
        _own_names(self.pod_template, WORKER_TAKEN)
        return self


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError("must be host:port, such as redis.databases.svc:6379")
    return value


class Redis(Spec):
    address: Annotated[str, Field(max_length=253), AfterValidator(_address)] = Field(
        description="host:port of the Redis that keeps the head's state."
    )
    secret_ref: SecretRef | None = Field(
        default=None, description="Secret with the password of that Redis, in the operator's namespace."
    )


class Head(Spec):
    """The pod with Ray's head and the conductor."""

    redis: Redis | None = Field(
        default=None,
        description="Keeps the head's state, so that engines survive the loss of the head's pod. Without it they end "
        "about a minute after it. " + IN_A_CLUSTER,
    )
    node_selector: NodeSelector = Field(default={})
    tolerations: Tolerations = ()
    affinity: Affinity = Field(default={})
    runtime_class_name: RuntimeClassName = ""
    resources: Resources = Field(default={})
    pod_template: PodTemplate = Field(default={})

    @model_validator(mode="after")
    def _names_of_its_own(self) -> Self:
        _own_names(self.pod_template, HEAD_TAKEN)
        return self


class Hub(Spec):
    endpoint: str = Field(
        default="https://huggingface.co",
        max_length=1024,
        pattern=r"^https?://[^@/\s]+(/\S*)?$",
        description="Base URL of the hub, without a user in it: a token comes from `secretRef`. " + IN_A_CLUSTER,
    )
    secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret with the hub's access token, in the operator's namespace. " + IN_A_CLUSTER,
    )


class Cache(Spec):
    size: Size | None = Field(
        default=None,
        description="Bytes that models may use on a node's disk (without path and claimName: on a pod's), a quantity "
        "such as 500Gi. Default: the disk.",
    )
    path: Annotated[str, Field(max_length=1024, pattern="^/")] | None = Field(
        default=None,
        description="Folder on each node that its pods share: it must exist, writable for user 1000, in a namespace "
        "whose pod security allows hostPath. Nodes without a worker pod are preloaded, too. Without it and claimName "
        "each pod keeps its own models. " + IN_A_CLUSTER,
    )
    claim_name: Name | None = Field(
        default=None,
        description="PersistentVolumeClaim in the operator's namespace that all worker pods share, instead of path. "
        "It must be ReadWriteMany where pods are on several nodes. " + IN_A_CLUSTER,
    )
    download_rate: Size | None = Field(
        default=None,
        description="Bytes a second that the downloads of one cache instance may take, a quantity such as 200Mi. "
        "Default: no limit. " + IN_A_CLUSTER,
    )
    verify_rate: Size | None = Field(
        default=None,
        description="Bytes a second at which files are read again and compared with their digests, a quantity. "
        "Default: 20Mi. " + IN_A_CLUSTER,
    )
    hub: Hub = Field(default=Hub(), description="Where hf:// models come from. " + IN_A_CLUSTER)

    @model_validator(mode="after")
    def _one_volume(self) -> Self:
        if self.path is not None and self.claim_name is not None:
            raise wrong("claimName", "stands beside path; keep one of them: models are on one volume")
        return self

    @property
    def per_pod(self) -> bool:
        """Each worker pod keeps its own models."""
        return self.path is None and self.claim_name is None


class GPUPoolSpec(Spec):
    namespaces: tuple[Annotated[str, Field(max_length=63), AfterValidator(_namespace_or_star)], ...] = Field(
        default=("*",), max_length=1000, description="Namespaces that may place models here; '*' is all."
    )
    workers: tuple[Worker, ...] = Field(
        min_length=1,
        max_length=MAX_WORKERS,
        description="Worker groups, in order of preference.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    head: Head = Field(default=Head(), description="The pod of the Ray head and the conductor.")
    cache: Cache = Field(default=Cache(), description="The weight cache on each node.")
    idle_after: Annotated[DurationS, AfterValidator(_idle_pod)] | None = Field(
        default=None,
        description="A worker pod without engines for this long is removed, down to min; at least 10s. "
        "Default: what the operator is set to, 60s. " + IN_A_CLUSTER,
    )
    queue_name: Name | None = Field(
        default=None,
        description="Kueue LocalQueue, in the operator's namespace, that admits the pool. " + IN_A_CLUSTER,
    )

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [worker.name for worker in self.workers]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise wrong(f"workers.{index}.name", f"{name!r} is used twice; give each group its own name")
        return self

    def admits(self, namespace: str) -> bool:
        return "*" in self.namespaces or namespace in self.namespaces


class GPUPool(Spec):
    """Devices that models share; in a cluster one RayCluster each."""

    api_version: Literal["cotenant.dev/v1alpha1"] = "cotenant.dev/v1alpha1"
    kind: Literal["GPUPool"] = "GPUPool"
    metadata: ClusterMetadata
    spec: GPUPoolSpec
