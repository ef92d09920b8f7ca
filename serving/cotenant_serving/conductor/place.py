"""Placing by bytes. Pure. In this order: free room; room that engines free which end anyway; a new pod, where the
group may have more; the idle engine that is cheapest to bring back makes room; the model's own old revision gives
way; wait. Of devices that are as good, one whose node has the weights on its disk comes first. One whose node's cache
cannot use its volume comes last, whatever its group, for models that need it: they would most likely fail there, and
again after each pause."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cotenant_serving.conductor import groups, told
from cotenant_serving.conductor.groups import Pods
from cotenant_serving.conductor.world import (
    STARTING_PHASES,
    Delete,
    Device,
    Engine,
    ModelView,
    Start,
    World,
    app_name,
    gib,
)
from cotenant_serving.contract import Candidate, EngineSpec, Reason

_UNKNOWN_LOAD_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one try to place an engine ended. `blocked`: there is no room and nothing makes any."""

    explanation: tuple[str, ...]
    blocked: bool = False
    reason: Reason | None = None
    """Where there is more to say than that it waits."""
    in_place: EngineSpec | None = None
    """The old revision that gives way, to be started again should the new one fail."""

    @property
    def awaits_pod(self) -> bool:
        return self.reason in (Reason.POD_PENDING, Reason.NO_NODE)


@dataclass(slots=True)
class Placing:
    """The room on every device while one decision is made: each `put` sees the ones before it."""

    world: World
    engines: tuple[Engine, ...]
    going: set[str]
    needs: Mapping[str, int]
    """model → engines that its requests of now and `min` need: no eviction goes below."""
    pods: Pods
    starts: list[Start] = field(default_factory=list)
    evictions: list[Delete] = field(default_factory=list)
    promised: dict[str, int] = field(default_factory=dict)
    """device → bytes that a model waits for there: a smaller one that comes later must not take them."""

    @classmethod
    def of(cls, world: World, *, going: set[str], needs: Mapping[str, int]) -> "Placing":
        return cls(world, world.engines, set(going), needs, Pods.of(world))

    def put(self, view: ModelView, spec: EngineSpec, *, may_evict: bool, may_grow: bool) -> Outcome:
        """Find a place for one engine.

        `may_evict`: idle engines of other models may end for it. `may_grow`: a pod may be brought for it.
        """
        options = self._options(spec)
        attempts = [self._free_room, self._ending_room]
        if may_grow:
            attempts.append(self._new_pod)
        if may_evict:
            attempts.append(self._evicting)
        for attempt in (*attempts, self._in_place):
            outcome = attempt(view, spec, options)
            if outcome is not None:
                return outcome
        return (may_grow and self._late_pod(spec)) or self._no_room(spec, options)

    def foresee(self, spec: EngineSpec) -> None:
        """Ask now for the pod of an engine that is started later, one after the other, if it needs one."""
        for candidate in spec.candidates:
            for device in self.world.devices_of(candidate.group):
                if self.world.answers(device) and self.free_bytes(device) >= candidate.share_bytes:
                    self._promise(device, candidate)
                    return
        self.pods.put(spec, available=True)

    def _options(self, spec: EngineSpec) -> list[tuple[Candidate, Device]]:
        """Best first: by group, and within it by what its node's disk has; those without a cache that works last."""
        options = [
            (candidate, device)
            for candidate in spec.candidates
            for device in sorted(self.world.devices_of(candidate.group), key=lambda one: self._trouble(spec, one))
            if self.world.answers(device)
        ]
        return sorted(options, key=lambda option: self.world.lacks_cache(spec, option[1]))

    def free_bytes(self, device: Device) -> int:
        """Room left on the device; shares count until their process is gone."""
        taken = sum(engine.args.share_bytes for engine in self._on(device))
        started = sum(start.candidate.share_bytes for start in self.starts if start.device.id == device.id)
        return device.memory_bytes - taken - started - self.promised.get(device.id, 0)

    def _free_room(
        self, view: ModelView, spec: EngineSpec, options: list[tuple[Candidate, Device]]
    ) -> Outcome | None:
        fitting = [option for option in options if self.free_bytes(option[1]) >= option[0].share_bytes]
        quiet = [option for option in fitting if self._starter(option[1]) is None]
        if fitting and not quiet:
            candidate, device = fitting[0]
            self._promise(device, candidate)
            return Outcome(explanation=(f"waits for the start lease of {device.id}: {self._starter(device)} starts",))
        if not quiet:
            return None
        # In the first group that has room, where the cache works and the weights are on the disk; then best fit,
        # which leaves the largest holes for larger models.
        first = quiet[0][0].group
        candidate, device = min(
            (option for option in quiet if option[0].group == first),
            key=lambda option: (*self._trouble(spec, option[1]), self.free_bytes(option[1]), option[1].id),
        )
        slot = self._free_slot(spec)
        self.starts.append(Start(spec=spec, slot=slot, device=device, candidate=candidate))
        share, free = gib(candidate.share_bytes), gib(self.free_bytes(device))
        line = f"starts {app_name(spec, slot)} on {device.id}: {share}, {free} stay free"
        return Outcome(explanation=(line + self._about_weights(spec, self.world.on_disk(spec, device)),))

    def _ending_room(
        self, view: ModelView, spec: EngineSpec, options: list[tuple[Candidate, Device]]
    ) -> Outcome | None:
        for candidate, device in options:
            if self.free_bytes(device) + self._ending_bytes(device) >= candidate.share_bytes:
                self._promise(device, candidate)
                return Outcome(explanation=(f"waits on {device.id} until engines that end have freed their share",))
        return None

    def _new_pod(self, view: ModelView, spec: EngineSpec, options: list[tuple[Candidate, Device]]) -> Outcome | None:
        group = self.pods.put(spec, available=True)
        if group is None:
            return None
        return Outcome(reason=Reason.POD_PENDING, explanation=(self._about_pod(spec, group),))

    def _late_pod(self, spec: EngineSpec) -> Outcome | None:
        """Nothing else is left: the pod that did not come in time is waited for, so that its device is used."""
        group = self.pods.put(spec, available=False)
        if group is None:
            return None
        return Outcome(blocked=True, reason=Reason.NO_NODE, explanation=(self._about_pod(spec, group),))

    def _evicting(self, view: ModelView, spec: EngineSpec, options: list[tuple[Candidate, Device]]) -> Outcome | None:
        for candidate, device in options:
            short = candidate.share_bytes - self.free_bytes(device)
            victims = self._victims(view, device, short - self._ending_bytes(device))
            if victims:
                for victim in victims:
                    self._evict(victim, f"idle, makes room for {view.name}")
                self._promise(device, candidate)
                names = ", ".join(victim.args.app for victim in victims)
                return Outcome(explanation=(f"waits on {device.id}: {names} idle and cheapest to bring back, ends",))
        return None

    def _in_place(self, view: ModelView, spec: EngineSpec, options: list[tuple[Candidate, Device]]) -> Outcome | None:
        """Old and new revision never fit together: the old one gives way, once; requests wait meanwhile."""
        old = [engine for engine in view.ready if engine.revision != spec.revision]
        if view.failed_target or view.of_revision(spec.revision) or not old:
            return None
        for candidate, device in options:
            mine = [engine for engine in old if engine.args.device_id == device.id]
            room = self.free_bytes(device) + sum(engine.args.share_bytes for engine in mine)
            if mine and room >= candidate.share_bytes:
                for engine in mine:
                    self._evict(engine, f"gives way to revision {spec.revision}: both do not fit")
                self._promise(device, candidate)
                return Outcome(explanation=(f"replaces {mine[0].args.app} in place",), in_place=mine[0].args.spec)
        return None

    def _no_room(self, spec: EngineSpec, options: list[tuple[Candidate, Device]]) -> Outcome:
        if not options:
            names = ", ".join(candidate.group for candidate in spec.candidates)
            return Outcome(blocked=True, explanation=(f"no device of worker group {names} is there now",))
        lines = []
        for candidate, device in options:
            held = ", ".join(f"{e.args.app} {gib(e.args.share_bytes)} ({e.phase})" for e in self._on(device))
            lines.append(
                f"{device.id}: needs {gib(candidate.share_bytes)}, {gib(self.free_bytes(device))} of "
                f"{gib(device.memory_bytes)} free; held by {held or 'nobody'}"
            )
        return Outcome(blocked=True, explanation=tuple(lines))

    def _victims(self, view: ModelView, device: Device, short: int) -> list[Engine]:
        """Idle engines on the device, cheapest to bring back first, just enough of them; empty if not enough."""
        chosen: list[Engine] = []
        for engine in sorted(self._evictable(view, device), key=self._cost):
            if sum(victim.args.share_bytes for victim in chosen) >= short:
                break
            left = self._staying(engine.model) - sum(victim.model == engine.model for victim in chosen)
            if left > self.needs.get(engine.model, 0):
                chosen.append(engine)
        return chosen if sum(victim.args.share_bytes for victim in chosen) >= short else []

    def _evictable(self, view: ModelView, device: Device) -> Iterable[Engine]:
        for engine in self._on(device):
            idle = engine.phase == "ready" and engine.running == 0 and not self._goes(engine)
            if idle and engine.model != view.name:
                yield engine

    def _cost(self, engine: Engine) -> tuple[float, float, str]:
        """Its weights will be on its node's disk, even if it had to fetch them when it was loaded."""
        memory = self.world.memory.get(engine.model)
        measured_s = memory.load_s if memory and memory.load_s else _UNKNOWN_LOAD_S
        load_s = self.world.loads.expected_s(engine.model, engine.args.spec.weights_bytes)
        return (measured_s if load_s is None else load_s, -engine.idle_s, engine.args.app)

    def _trouble(self, spec: EngineSpec, device: Device) -> tuple[bool, bool]:
        """As far as anybody knows: can it not have its weights there, and would it have to fetch them?"""
        return self.world.lacks_cache(spec, device), self.world.on_disk(spec, device) is not True

    def _about_weights(self, spec: EngineSpec, here: bool | None) -> str:
        if here is None:
            return ""
        if here:
            return "; its weights are on this node"
        return f"; {told.must_fetch(spec.weights_bytes, self.world.loads.fetch_s(spec.weights_bytes))}"

    def _about_pod(self, spec: EngineSpec, group: str) -> str:
        return groups.describe(self.pods, group) + self._about_weights(spec, self.world.on_new_disk(spec))

    def _promise(self, device: Device, candidate: Candidate) -> None:
        self.promised[device.id] = self.promised.get(device.id, 0) + candidate.share_bytes

    def _evict(self, engine: Engine, why: str) -> None:
        self.evictions.append(Delete(app=engine.args.app, why=why))
        self.going.add(engine.args.app)

    def _on(self, device: Device) -> list[Engine]:
        return [engine for engine in self.engines if engine.args.device_id == device.id]

    def _goes(self, engine: Engine) -> bool:
        return engine.args.app in self.going or engine.phase == "deleting"

    def _staying(self, model: str) -> int:
        """Engines of the model that are ready and go neither by themselves nor with their node."""
        ready = (engine for engine in self.engines if engine.model == model and engine.phase == "ready")
        return sum(not (self._goes(engine) or self.world.leaves(engine)) for engine in ready)

    def _ending_bytes(self, device: Device) -> int:
        return sum(engine.args.share_bytes for engine in self._on(device) if self._goes(engine))

    def _starter(self, device: Device) -> str | None:
        for start in self.starts:
            if start.device.id == device.id:
                return start.app
        for engine in self._on(device):
            if engine.phase in STARTING_PHASES and not (engine.fetching or engine.overdue or self._goes(engine)):
                return engine.args.app
        return None

    def _free_slot(self, spec: EngineSpec) -> int:
        used = {engine.args.app for engine in self.engines} | {start.app for start in self.starts}
        used |= self.world.strangers.keys()
        return next(slot for slot in range(len(used) + 1) if app_name(spec, slot) not in used)
