"""The plan as a value: what may run where, who may see it, and what was refused and why."""

from dataclasses import dataclass, field
from typing import Literal

from cotenant_operator.estimate import Estimate
from cotenant_serving.contract import EngineSpec, Reason, Task, WorkerGroup
from cotenant_serving.contract_gateway import Limits


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a machine really has for one worker group."""

    count: int
    memory_bytes: int
    """Of one device."""
    problem: str = ""
    """Why there is none, for example `NVML: library not found`; empty when there is."""


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """One ModelDeployment: accepted with an engine, or refused with a reason."""

    name: str
    """`namespace/name`."""
    task: Task | None
    """None while it is not set and the files, which would say it, are not read yet or cannot be."""
    pool: str
    engine: EngineSpec | None = None
    refusal: Refusal | None = None
    """Set exactly when `engine` is None."""
    estimate: Estimate | None = None
    min_engines: int = 0
    max_engines: int = 1
    idle_after_s: float = 600.0
    place: str = ""
    name_taken_for: tuple[str, ...] = ()
    """Tenants for whom its bare name means an older model: they call it by `name`, which always works."""
    left_out: bool = False
    """Gateways do not know it: their configuration has no room for it."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    name: str
    groups: tuple[WorkerGroup, ...] = ()
    models: tuple[ModelPlan, ...] = ()

    @property
    def accepted(self) -> tuple[ModelPlan, ...]:
        return tuple(model for model in self.models if model.engine is not None)

    @property
    def refused(self) -> tuple[ModelPlan, ...]:
        return tuple(model for model in self.models if model.engine is None)


KeyFault = Literal["NoKeys", "KeyMissing", "KeyUnusable", "KeyShared"]


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """Why one of a tenant's `spec.keys` does not work, or that there are none. Holds no key."""

    reason: KeyFault
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPlan:
    name: str
    namespaces: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """What it sees, as `namespace/name`."""
    claims: tuple[str, ...] = ()
    """Of models that share a bare name, the oldest, as `namespace/name`: the bare name means it."""
    limits: Limits = field(default_factory=Limits)
    secret_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(Secret, key inside it) of each usable API key. The key itself is in no plan."""
    key_problems: tuple[KeyProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """`errors` are mistakes in the files that a run must not paper over; `warnings` have a safe reading."""

    pools: tuple[PoolPlan, ...] = ()
    tenants: tuple[TenantPlan, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        return tuple(model for pool in self.pools for model in pool.models)

    def pool(self, name: str) -> PoolPlan:
        """Raises KeyError."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)
