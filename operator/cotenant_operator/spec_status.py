"""The `status` of ModelDeployment, Tenant and GPUPool: the one source of its schema, which the operator fills in.

`object_status`, `tenant_status` and `pool_status` make it as plain JSON; a unit test holds them to these classes.
"""

from typing import Annotated, Literal

from pydantic import Field

from cotenant_operator.schema import Spec

Text = Annotated[str, Field(max_length=4096)]
Word = Annotated[str, Field(max_length=316)]
Quantity = Annotated[str, Field(max_length=32)]
Number = Annotated[int, Field(ge=0)]


class ConditionEntry(Spec):
    """One statement about the object, with the reason why it is so."""

    type: Word = Field(description="What the statement is about, such as Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Unknown: nobody can say now.")
    reason: Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z][A-Za-z0-9]*$")] = Field(
        description="One word for programs, of the list in docs/conditions.md."
    )
    message: Text = Field(default="", description="For people: what, with numbers, and the next step.")
    observed_generation: Number = Field(description="metadata.generation of the spec that this is about.")
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = Field(
        description="When status changed last."
    )


Conditions = Annotated[
    tuple[ConditionEntry, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
GENERATION = "metadata.generation of the spec that this status is about."


class ReplicaCounts(Spec):
    ready: Number = Field(default=0, description="Engines that answer. The scale subresource shows it.")
    desired: Number = Field(
        default=0,
        description="Engines that it should have now, at least spec.replicas.min. While the pool or the model rolls, "
        "both the old and the new ones may answer: then ready is above it.",
    )
    summary: Word = Field(default="", description="ready/desired, for the column REPLICAS.")


class GrantedShare(Spec):
    share: Word = Field(default="", description="Memory of a time-sliced device, or the profile of a MIG slice.")
    memory: Quantity = Field(default="", description="The share as a quantity of bytes.")
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="Kind of device.")
    groups: tuple[Word, ...] = Field(
        default=(), max_length=64, description="Worker groups in which an engine may run, the preferred one first."
    )


class CachedFiles(Spec):
    """Where its files are, as the weight caches of the pool's nodes say; without numbers where none has said so."""

    nodes: Number | None = Field(default=None, description="Nodes that have all of it on disk.")
    of: Number | None = Field(default=None, description="Nodes with a weight cache.")
    bytes: Number | None = Field(default=None, description="What it takes on each; 0 while none has it.")
    summary: Word = Field(
        default="", description="nodes/of and bytes, for the column CACHED; else the status of Cached."
    )


class Placement(Spec):
    """One engine."""

    engine: Word = Field(description="Name of the engine, as logs and `cotenant explain` have it.")
    state: Word = Field(description="starting, waiting, loading, ready, draining or failed.")
    revision: Word = Field(default="", description="What it serves.")
    device: Word = Field(default="", description="node-address/group/index of its device.")
    group: Word = Field(default="", description="Worker group.")
    node: Word = Field(default="", description="Node of its pod.")
    pod: Word = Field(default="", description="Worker pod, in the operator's namespace.")
    share: Quantity = Field(default="", description="Device memory that it may use.")


class ModelDeploymentStatus(Spec):
    """How the model is. Written by the operator; absent until it has seen the object."""

    observed_generation: Number | None = Field(default=None, description=GENERATION)
    conditions: Conditions = Field(
        default=(), description="Accepted, Cached, Placed, Loaded and Ready: the first that is not True says why."
    )
    model_id: Word | None = Field(
        default=None,
        description="What to give as `model` in a request: namespace/name. The bare name works where it is clear.",
    )
    url: Text | None = Field(default=None, description="Base URL of the OpenAI API, for clients inside the cluster.")
    state: Literal["cold", "waking", "ready", "waiting", "failed"] | None = Field(
        default=None,
        description="cold: no engine, the first request wakes one. waking: one is on its way. ready: it answers. "
        "waiting: there is no room now. failed: see Ready; it is tried again by itself.",
    )
    task: Word | None = Field(default=None, description="What it is served for, set or inferred.")
    source: Text | None = Field(default=None, description="What spec.model was resolved to, with the commit.")
    revision: Word | None = Field(default=None, description="Revision that serves now; absent when none does.")
    target_revision: Word | None = Field(
        default=None, description="Revision of the spec; serves once it is ready. Absent while the spec is refused."
    )
    replicas: ReplicaCounts | None = Field(default=None, description="How many engines.")
    selector: Text | None = Field(
        default=None, description="Labels of the worker pods of its pool, for autoscalers that ask for pods."
    )
    cached: CachedFiles | None = Field(default=None, description="On how many nodes its files are.")
    gpu: GrantedShare | None = Field(default=None, description="What one engine gets of a device.")
    placements: tuple[Placement, ...] = Field(default=(), max_length=64, description="Where its engines are.")
    explanation: tuple[Text, ...] = Field(
        default=(), max_length=16, description="The conductor's last decision about it, for `cotenant explain`."
    )


class TenantStatus(Spec):
    """How the tenant is. Written by the operator; absent until it has seen the object."""

    observed_generation: Number | None = Field(default=None, description=GENERATION)
    conditions: Conditions = Field(
        default=(), description="Accepted, and Ready: whether anybody can call in its name."
    )
    keys: Number | None = Field(default=None, description="API keys that work.")
    models: Number | None = Field(default=None, description="Models that it sees.")


class RayClusters(Spec):
    active: Word = Field(default="", description="The RayCluster that serves.")
    target: Word = Field(
        default="", description="The RayCluster that is as the spec says; another one during a roll."
    )


class ModelCounts(Spec):
    ready: Number = Field(default=0, description="Models of which an engine answers.")
    all: Number = Field(default=0, description="Models that name the pool, refused ones too.")
    summary: Word = Field(default="", description="ready/all, for the column MODELS.")


class WorkerStatus(Spec):
    """One worker group."""

    name: Word = Field(description="Name of the group.")
    device: Literal["cpu", "cuda"] = Field(description="Kind of device.")
    resource: Word = Field(default="", description="Kubernetes resource of one device.")
    in_cluster: Number | None = Field(default=None, description="Units of that resource on all Ready nodes.")
    min: Number = Field(default=0, description="Pods kept.")
    max: Number = Field(default=0, description="Pods at most.")
    pods: Number = Field(default=0, description="Pods that are ready.")
    devices: Number = Field(default=0, description="Devices that the conductor knows.")
    memory: Quantity = Field(default="", description="What one device may use.")
    reserved: Quantity = Field(default="", description="Sum of the shares on all of them.")


class PoolDevice(Spec):
    id: Word = Field(description="node-address/group/index.")
    group: Word = Field(default="", description="Worker group.")
    memory: Quantity = Field(default="", description="What it has for engines.")
    reserved: Quantity = Field(default="", description="Sum of the shares on it.")
    engines: Number = Field(default=0, description="Engines on it.")
    node: Word = Field(default="", description="Node.")
    pod: Word = Field(default="", description="Worker pod, in the operator's namespace.")


class GPUPoolStatus(Spec):
    """How the pool is. Written by the operator; absent until it has seen the object."""

    observed_generation: Number | None = Field(default=None, description=GENERATION)
    conditions: Conditions = Field(
        default=(), description="Accepted, KubeRayReady, ConductorReady, Rolling and Ready."
    )
    ray_clusters: RayClusters | None = Field(
        default=None, description="KubeRay's objects, in the operator's namespace."
    )
    models: ModelCounts | None = Field(default=None, description="Models of the pool.")
    pods: Word | None = Field(default=None, description="Worker pods that are ready / that there may be.")
    workers: tuple[WorkerStatus, ...] = Field(default=(), max_length=64, description="Worker groups, as in the spec.")
    devices: tuple[PoolDevice, ...] = Field(default=(), max_length=256, description="Devices that exist now.")
