"""GPUPool (`cotenant.dev/v1alpha1`): the machines that models share. Part of the one source of the schema."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cotenant_operator.schema import ByteCount, ClusterMetadata, Count, Name, SecretRef, Spec, wrong

_IN_A_CLUSTER = "Kubernetes only; no effect on one machine."
MIG_RESOURCE = "nvidia.com/mig-"


def _namespace_or_star(value: str) -> str:
    if value != "*" and (not value or len(value) > 63):
        raise ValueError("must be the name of a namespace, or '*' for all")
    return value


class Worker(Spec):
    """One worker group: pods that each hold one GPU, one MIG slice, or CPU memory, which engines share."""

    name: Name = Field(description="Name of the group.")
    device: Literal["cpu", "cuda"] = Field(description="cpu or cuda. Nothing falls back from one to the other.")
    resource: str = Field(
        default="", max_length=253, description="Kubernetes resource of one device; default nvidia.com/gpu for cuda."
    )
    memory: Annotated[ByteCount, Field(gt=0)] = Field(
        description="What one unit of resource may use, a quantity such as 80Gi."
    )
    sharing: Literal["timeSlice", "mig"] = Field(
        default="timeSlice", description="timeSlice: cooperative. mig: one MIG slice, walled by hardware."
    )
    min: Count = Field(default=0, description="Pods kept. " + _IN_A_CLUSTER)
    max: Annotated[Count, Field(ge=1)] = Field(default=1, description="Pods at most; on one machine, GPUs at most.")
    node_selector: dict[str, str] = Field(default={}, description=_IN_A_CLUSTER)
    tolerations: tuple[dict[str, Any], ...] = Field(default=(), description=_IN_A_CLUSTER)
    affinity: dict[str, Any] = Field(default={}, description=_IN_A_CLUSTER)
    runtime_class_name: str = Field(default="", description=_IN_A_CLUSTER)
    resources: dict[str, Any] = Field(default={}, description="Pod resources. " + _IN_A_CLUSTER)
    pod_template: dict[str, Any] = Field(default={}, description="Strategic merge patch. " + _IN_A_CLUSTER)

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
        if self.device == "cpu" and self.resource:
            raise wrong("resource", "is only for device cuda; remove it")
        if (self.sharing == "mig") != (self.mig_profile is not None):
            raise wrong(
                "sharing",
                f"does not match the resource: sharing mig goes with {MIG_RESOURCE}<profile>, and only with it",
            )
        if self.min > self.max:
            raise wrong("min", f"is above max {self.max}; raise max or lower min")
        return self


class Redis(Spec):
    address: str = Field(min_length=1, description="host:port of the Redis that keeps the head's state.")
    secret_ref: SecretRef | None = Field(default=None, description="Password of that Redis.")


class Head(Spec):
    redis: Redis | None = Field(default=None, description="Lets engines survive the head. " + _IN_A_CLUSTER)


class Hub(Spec):
    endpoint: str = Field(
        default="https://huggingface.co", pattern=r"^https?://", description="Base URL of the hub. " + _IN_A_CLUSTER
    )
    secret_ref: SecretRef | None = Field(default=None, description="Access token. " + _IN_A_CLUSTER)


class Cache(Spec):
    size: Annotated[ByteCount, Field(gt=0)] | None = Field(default=None, description="Budget. " + _IN_A_CLUSTER)
    path: str = Field(
        default="/var/lib/cotenant/models", pattern="^/", description="Folder on each node. " + _IN_A_CLUSTER
    )
    hub: Hub = Field(default=Hub(), description="Where hf:// models come from. " + _IN_A_CLUSTER)


class GPUPoolSpec(Spec):
    namespaces: tuple[Annotated[str, AfterValidator(_namespace_or_star)], ...] = Field(
        default=("*",), description="Namespaces that may place models here; '*' is all."
    )
    workers: tuple[Worker, ...] = Field(min_length=1, description="Worker groups, in order of preference.")
    head: Head = Field(default=Head(), description="The Ray head.")
    cache: Cache = Field(default=Cache(), description="The weight cache on each node.")

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
