"""What a pass saw of one pool in the cluster, as the status of its objects needs it. Frozen values, no decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Literal

import msgspec

from cotenant_operator.spec import GPUPool
from cotenant_serving.contract import ModelState, ModelStatus, NodeWeights, PoolStatus

KubeRay = Literal["present", "missing", "silent"]
"""`missing`: the API server does not serve ray.io/v1. `silent`: it does, and nobody acts on the RayCluster."""
Head = Literal["absent", "pending", "ready", "lost"]
"""`absent`: there is no RayCluster yet. `pending`: it has not been ready yet. `lost`: it was, and its pod is gone."""
RollPhase = Literal["Settled", "Starting", "Warming", "HandingOver", "Draining", "TakingBack", "Stuck"]

_BEST: tuple[ModelState, ...] = ("ready", "waking", "waiting", "cold", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """A pod of the pool, as far as it is not as it should be."""

    name: str
    group: str = ""
    """Worker group; empty for a head."""
    reason: str = ""
    """Why not, in Kubernetes' word: `Unschedulable`, `ImagePullBackOff`, `CrashLoopBackOff`, `FailedCreate`."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsSeen:
    """The DaemonSet of node agents: how many pods are wanted, were made, are ready."""

    namespace: str
    wanted: int
    created: int
    ready: int
    trouble: str = ""
    """What is wrong with the first pod that does not come up, in the words of Kubernetes; empty when nobody knows."""


@dataclass(frozen=True, kw_only=True)
class PoolSeen:
    """One GPUPool and what there is of it. `PoolSeen(pool=…)` alone is one of which nothing exists yet."""

    pool: GPUPool
    kuberay: KubeRay = "present"
    active: str = ""
    """RayCluster that serves; empty while there is none."""
    target: str = ""
    """RayCluster that is as the GPUPool says; another than `active` while the pool rolls."""
    head: Head = "absent"
    """Of `active`."""
    statuses: tuple[PoolStatus, ...] = ()
    """What the conductors said, `active`'s first; none while none answers."""
    problem: str = ""
    """Why the head does not come up or the conductor does not answer, in the words of who knows."""
    missing_secret: str = ""
    """Why worker pods do not get the hub's token, without which none starts; empty when they do."""
    pods: tuple[PodSeen, ...] = ()
    workers: Mapping[str, int] = field(default_factory=dict)
    """Worker group → pods that are ready."""
    agents: AgentsSeen | None = None
    """None where the pool has none, or nobody has counted them yet."""
    phase: RollPhase = "Settled"
    rolling: str = ""
    """What is being done to roll the pool, and why."""
    warm: Mapping[str, int] = field(default_factory=dict)
    """Model → engines that `target` is to have because those before it had them; empty unless the pool rolls."""
    node_resources: Mapping[str, int] | None = None
    """Extended resource → units that Ready nodes have in all; None when nodes cannot be read."""

    @cached_property
    def rows(self) -> Mapping[str, tuple[ModelStatus, ...]]:
        """`namespace/name` → its status in each RayCluster whose conductor answers, `active`'s first."""
        found: dict[str, tuple[ModelStatus, ...]] = {}
        for status in self.statuses:
            for model in status.models:
                found[model.model] = (*found.get(model.model, ()), model)
        return found

    @cached_property
    def models(self) -> Mapping[str, ModelStatus]:
        """`namespace/name` → its status over all conductors that answer."""
        return {model: reduce(_together, rows) for model, rows in self.rows.items()}

    @cached_property
    def weights(self) -> tuple[NodeWeights, ...]:
        """By node, as the first conductor that knows any has heard of their weight caches."""
        return next((status.weights for status in self.statuses if status.weights), ())

    @property
    def redis(self) -> bool:
        """Whether engines survive the loss of the head."""
        return self.pool.spec.head.redis is not None


def _together(one: ModelStatus, other: ModelStatus) -> ModelStatus:
    """The better state speaks for the model; its engines are those of both."""
    better, worse = sorted((one, other), key=lambda model: _BEST.index(model.state))
    return msgspec.structs.replace(
        better,
        running=one.running + other.running,
        queued=max(one.queued, other.queued),
        ready_engines=one.ready_engines + other.ready_engines,
        engines=(*one.engines, *other.engines),
        target_revision=better.target_revision or worse.target_revision,
    )
