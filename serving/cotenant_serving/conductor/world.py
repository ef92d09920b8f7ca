"""What the conductor decides on (`World`) and what it decides (`Decision`): frozen values, no I/O, no Ray.

Times are seconds of one monotonic clock of this process; bytes are device memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cotenant_serving.contract import (
    Candidate,
    Desired,
    DesiredModel,
    DeviceKind,
    EngineArgs,
    EngineSpec,
    Heartbeat,
    ModelDemand,
    ModelStatus,
    Reason,
)

AppStatus = Literal["deploying", "running", "failed", "deleting", "absent"]
"""Serve's view of an app, folded: everything that is not there is `absent`."""

EnginePhase = Literal["starting", "waiting", "loading", "ready", "draining", "failed", "lost", "deleting"]
"""`starting`: no heartbeat of this app yet. `lost`: heartbeats stopped and Serve has not replaced it yet."""

STARTING_PHASES = frozenset({"starting", "waiting", "loading", "lost"})
HEARTBEAT_TIMEOUT_S = 3.0
"""Six missed heartbeats: long enough for a busy two-core machine, shorter than Serve's own health check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, MIG slice or CPU memory that exists now."""

    id: str
    group: str
    kind: DeviceKind
    memory_bytes: int
    node: str
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One app, with everything known about the engine in it."""

    args: EngineArgs
    phase: EnginePhase
    beat: Heartbeat | None = None
    idle_s: float = 0.0
    """Since it last had a request."""
    age_s: float = 0.0
    """Since it was created, or since this conductor adopted it."""
    failure: Failure | None = None

    @property
    def model(self) -> str:
        return self.args.spec.model

    @property
    def revision(self) -> str:
        return self.args.spec.revision

    @property
    def running(self) -> int:
        return self.beat.running if self.beat else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMemory:
    """What must be remembered about a model between two decisions."""

    last_demand_s: float | None = None
    failed_revision: str = ""
    failure: Failure | None = None
    failures: int = 0
    """In a row, of `failed_revision`."""
    retry_at_s: float = 0.0
    load_s: float | None = None
    """Measured when it was last loaded."""
    surplus_since_s: float | None = None
    """Since when it has had more engines than it wants; None when it has not."""
    fallback: EngineSpec | None = None
    """The revision that served before it was replaced in place; started again when the new one cannot load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    now_s: float
    desired: Desired | None
    """None: not told yet; what runs is adopted and nothing is deleted."""
    devices: tuple[Device, ...] = ()
    engines: tuple[Engine, ...] = ()
    demand: Mapping[str, ModelDemand] = field(default_factory=dict)
    memory: Mapping[str, ModelMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    spec: EngineSpec
    slot: int
    device: Device
    candidate: Candidate

    @property
    def app(self) -> str:
        return app_name(self.spec, self.slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    app: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    starts: tuple[Start, ...] = ()
    deletes: tuple[Delete, ...] = ()
    memory: Mapping[str, ModelMemory] = field(default_factory=dict)
    models: tuple[ModelStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One desired model with its engines, demand and memory: what most rules look at."""

    desired: DesiredModel
    engines: tuple[Engine, ...]
    demand: ModelDemand
    memory: ModelMemory
    now_s: float

    @property
    def name(self) -> str:
        return self.desired.name

    @property
    def target(self) -> str:
        return self.desired.engine.revision if self.desired.engine else ""

    @property
    def alive(self) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.phase not in ("deleting", "failed", "draining"))

    @property
    def ready(self) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.phase == "ready")

    @property
    def failed_target(self) -> bool:
        return bool(self.memory.failure) and self.memory.failed_revision == self.target

    def of_revision(self, revision: str) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.alive if engine.revision == revision)

    def not_of_revision(self, revision: str) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.alive if engine.revision != revision)


def app_name(spec: EngineSpec, slot: int) -> str:
    """`MODEL-REVISION-SLOT`; `/` is no good in a Serve app name and no Kubernetes name has a dot in its label."""
    return f"{spec.model.replace('/', '.')}-{spec.revision}-{slot}"


def gib(count: float) -> str:
    """Bytes for people: `512 MiB`, `3.25 GiB`."""
    if abs(count) < 1024**3:
        return f"{count / 1024**2:.0f} MiB"
    return f"{count / 1024**3:.2f} GiB"
