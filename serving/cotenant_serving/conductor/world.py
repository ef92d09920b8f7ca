"""What the conductor decides on (`World`) and what it decides (`Decision`): frozen values, no I/O, no Ray.

Times are seconds of one monotonic clock of this process; bytes are device memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cotenant_serving.conductor.cached import NodeCache, cache_name
from cotenant_serving.conductor.load_times import LoadTimes
from cotenant_serving.contract import (
    Candidate,
    Desired,
    DesiredModel,
    DeviceKind,
    EngineArgs,
    EngineSpec,
    GroupStatus,
    Heartbeat,
    ModelStatus,
    Reason,
    WorkerGroup,
)
from cotenant_serving.contract_gateway import ModelDemand

AppStatus = Literal["deploying", "running", "failed", "deleting", "absent"]
"""Serve's view of an app, folded: everything that is not there is `absent`."""

EnginePhase = Literal["starting", "waiting", "loading", "ready", "draining", "failed", "lost", "deleting"]
"""`starting`: no heartbeat of this app yet, or one that says so. `lost`: heartbeats stopped and Serve has not
replaced it yet."""

STARTING_PHASES = frozenset({"starting", "waiting", "loading", "lost"})
HEARTBEAT_TIMEOUT_S = 3.0
"""Six missed heartbeats: long enough for a busy two-core machine, shorter than Serve's own health check."""
REPLACE_LOST_S = 6.0
"""When a whole node has been silent for so long, other engines may start elsewhere: it may be gone, which Ray notices
much later. One lost engine on a node whose others speak comes back, however long that takes: Serve sees to it."""
ADOPTION_S = 10.0
"""So long an engine that is running already may take to be heard of by a conductor that has lost its state."""
POD_TIMEOUT_S = 120.0
"""A group whose pod has been pending for so long counts as unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, MIG slice or CPU memory that exists now."""

    id: str
    group: str
    kind: DeviceKind
    memory_bytes: int
    node: str
    index: int = 0
    host: str = ""
    """Host name of its node: in Kubernetes the pod's name."""
    leaving: bool = False
    """Its node is being drained: what is there may go on for a while, and nothing more starts there."""


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
    silent_s: float = 0.0
    """Since its last heartbeat, or since it was created when there was none."""
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

    @property
    def overdue(self) -> bool:
        """It was lost and has not come back in the time that a process needs."""
        return self.phase == "lost" and self.silent_s >= REPLACE_LOST_S

    @property
    def fetching(self) -> bool:
        """It brings its model to its node, without the start lease: others of its device may start meanwhile."""
        return self.phase == "loading" and self.beat is not None and not self.beat.holds_lease

    @property
    def has_files(self) -> bool:
        """Its weights are on its node: it waits for the start lease, or loads with it."""
        return self.beat is not None and (self.beat.holds_lease or self.beat.state == "waiting")

    @property
    def returning(self) -> bool:
        """It served and was lost: Serve starts it again."""
        return self.phase == "lost" and self.beat is not None and self.beat.state == "ready"


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
class GroupMemory:
    """What must be remembered about a worker group between two decisions."""

    devices: int = 0
    """When it was last looked at."""
    pending_since_s: float | None = None
    """Since when it has been asked for a device without getting any."""
    unavailable_until_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    now_s: float
    desired: Desired | None
    """None: not told yet; what runs is adopted and nothing is deleted."""
    devices: tuple[Device, ...] = ()
    engines: tuple[Engine, ...] = ()
    demand: Mapping[str, ModelDemand] = field(default_factory=dict)
    memory: Mapping[str, ModelMemory] = field(default_factory=dict)
    groups: Mapping[str, GroupMemory] = field(default_factory=dict)
    pod_timeout_s: float = POD_TIMEOUT_S
    strangers: Mapping[str, float] = field(default_factory=dict)
    """App of Serve that this conductor did not start → seconds in which its engine has not been heard of."""
    caches: Mapping[str, NodeCache] = field(default_factory=dict)
    """Address of a node → what its disk has. Nodes of which nothing is known are absent."""
    unusable_caches: Mapping[str, NodeCache] = field(default_factory=dict)
    """Address of a node → its cache, which answers and cannot use its volume; not among `caches`."""
    loads: LoadTimes = field(default_factory=LoadTimes)

    def devices_of(self, group: str) -> tuple[Device, ...]:
        """Those that stay."""
        return tuple(device for device in self.devices if device.group == group and not device.leaving)

    def leaves(self, engine: Engine) -> bool:
        """Is its node being drained?"""
        return any(device.leaving for device in self.devices if device.id == engine.args.device_id)

    def engines_on(self, device: Device) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.args.device_id == device.id)

    def answers(self, device: Device) -> bool:
        """False when every engine of its node was lost: the node is probably gone, though Ray does not know yet."""
        here = {one.id for one in self.devices if one.node == device.node}
        there = [engine for engine in self.engines if engine.args.device_id in here]
        return not there or not all(engine.overdue for engine in there)

    def missed(self, engine: Engine) -> bool:
        """Was it lost, and probably its node with it? Then nobody brings it back."""
        where = next((device for device in self.devices if device.id == engine.args.device_id), None)
        return engine.overdue and (where is None or not self.answers(where))

    def on_disk(self, spec: EngineSpec, device: Device) -> bool | None:
        """Are the engine's weights on the device's node? None when nobody knows.

        A node of which nothing is known has mostly just come. It counts as one without them, unless all others have
        them: promised too late, a model answers early; promised too early, a stream that was begun breaks off.
        """
        name, cache = cache_name(spec.source), self.caches.get(device.node)
        if not name:
            return None
        if self.lacks_cache(spec, device):
            return False
        if cache is not None:
            return name in cache.sources
        return False if self._caches_per_pod or not self._all_have(name) else None

    def lacks_cache(self, spec: EngineSpec, device: Device) -> bool:
        """Will the engine need the weight cache of the device's node, which says that it cannot use its volume?"""
        return device.node in self.unusable_caches and bool(cache_name(spec.source))

    def on_new_disk(self, spec: EngineSpec) -> bool | None:
        """Will they be in a pod that is yet to come? None when nobody knows; never True: who knows where it comes."""
        name = cache_name(spec.source)
        if not name:
            return None
        told = bool(self.caches or self.unusable_caches)
        nowhere = told and not any(name in cache.sources for cache in self.caches.values())
        return False if self._caches_per_pod or nowhere else None

    def downloads(self, spec: EngineSpec) -> bool | None:
        """Will the next engine have to fetch its weights, wherever it starts? None when nobody knows."""
        groups = {candidate.group for candidate in spec.candidates}
        there = [device for device in self.devices if device.group in groups and not device.leaving]
        found = {self.on_disk(spec, device) for device in there} or {self.on_new_disk(spec)}
        return False if True in found else None if None in found else True

    def downloads_on_new(self, spec: EngineSpec) -> bool | None:
        """Will an engine that waits for a pod have to fetch them there? None when nobody knows."""
        here = self.on_new_disk(spec)
        return None if here is None else not here

    @property
    def _caches_per_pod(self) -> bool:
        return self.desired is not None and self.desired.caches_per_pod

    def _all_have(self, name: str) -> bool:
        """True also where no cache has said anything. One that cannot use its volume has nothing."""
        return not self.unusable_caches and all(name in cache.sources for cache in self.caches.values())

    def group(self, name: str) -> WorkerGroup | None:
        groups = self.desired.groups if self.desired else ()
        return next((group for group in groups if group.name == name), None)


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
    pods: Mapping[str, int] = field(default_factory=dict)
    """group → pods to ask Ray's autoscaler for, besides those that are there. Groups that need none are absent."""
    groups: Mapping[str, GroupMemory] = field(default_factory=dict)
    group_statuses: tuple[GroupStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One desired model with its engines, demand and memory: what most rules look at."""

    desired: DesiredModel
    engines: tuple[Engine, ...]
    demand: ModelDemand
    memory: ModelMemory
    now_s: float
    warm: int = 0
    """Engines that it should have because another Ray cluster, which this one replaces, has them."""
    missed: frozenset[str] = frozenset()
    """Apps of those of its engines that nobody brings back."""
    leaving: frozenset[str] = frozenset()
    """Apps of those of its engines whose node is being drained."""
    on_disk: Mapping[str, bool] = field(default_factory=dict)
    """App of one of its engines that are not ready → whether its node has the weights; absent where nobody knows."""
    downloads: bool | None = None
    """Whether the next engine has to fetch them, wherever it starts; None when nobody knows."""
    loads: LoadTimes = field(default_factory=LoadTimes)

    @property
    def name(self) -> str:
        return self.desired.name

    @property
    def target(self) -> str:
        return self.desired.engine.revision if self.desired.engine else ""

    @property
    def weights_bytes(self) -> int:
        """0 when unknown."""
        return self.desired.engine.weights_bytes if self.desired.engine else 0

    @property
    def floor(self) -> int:
        """Engines that it has whether or not anybody asks."""
        return max(self.desired.min_engines, min(self.warm, self.desired.max_engines))

    @property
    def alive(self) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.phase not in ("deleting", "failed", "draining"))

    @property
    def ready(self) -> tuple[Engine, ...]:
        return tuple(engine for engine in self.engines if engine.phase == "ready")

    @property
    def staying(self) -> tuple[Engine, ...]:
        """Of those that are alive."""
        return tuple(engine for engine in self.alive if engine.args.app not in self.leaving)

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
