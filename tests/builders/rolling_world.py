"""A cluster in which a pool rolls, simulated: RayClusters, their conductors, devices, gateways and a clock.

Each device holds two engines. Conductors do what `contract.Desired` says of `warm`, `draining` and `keep_devices`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cotenant_operator.render.pool_template import PoolTemplate
from cotenant_operator.roll_world import ClusterSeen, Create, Delete, Handover, Note, Roll, Step, Told, Workers
from cotenant_operator.rolling import roll_to
from cotenant_serving.contract import EngineStatus, GroupStatus, ModelStatus, PoolStatus, Reason

GROUP = "shared"
ENGINES_PER_DEVICE = 2
DRAIN_S = 900.0


def template(name: str) -> PoolTemplate:
    return PoolTemplate(head=name, groups={GROUP: name})


def status(
    ready: Mapping[str, int] | None = None,
    *,
    failed: Sequence[str] = (),
    waiting: Sequence[str] = (),
    draining: bool = False,
    in_flight: int = 0,
    engines: int | None = None,
    generation: int = 1,
    reconciled: bool = True,
    pending: int = 0,
    devices: int = 0,
    empty: int = 0,
    loading: Sequence[str] = (),
) -> PoolStatus:
    """What a conductor says of models with so many ready engines each, and of those that have none."""
    ready = dict(ready or {})
    models = [
        ModelStatus(
            model=name,
            state="ready" if count else "cold",
            reason=Reason.READY if count else Reason.IDLE,
            ready_engines=count,
            engines=tuple(
                EngineStatus(app=f"{name}-{index}", model=name, revision="1", state="ready") for index in range(count)
            ),
        )
        for name, count in ready.items()
    ]
    models += [
        ModelStatus(model=name, state="failed", reason=Reason.LOAD_FAILED, message="no such file") for name in failed
    ]
    models += [ModelStatus(model=name, state="waiting", reason=Reason.NO_ROOM) for name in waiting]
    models += [
        ModelStatus(
            model=name,
            state="waking",
            reason=Reason.LOADING,
            engines=(EngineStatus(app=f"{name}-0", model=name, revision="1", state="loading"),),
        )
        for name in loading
    ]
    return PoolStatus(
        pool="p",
        epoch="e",
        generation=generation,
        models=tuple(models),
        groups=(GroupStatus(group=GROUP, pending=pending, devices=devices, empty=empty),),
        draining=draining,
        engines=sum(ready.values()) if engines is None else engines,
        in_flight=in_flight,
        reconciled=reconciled,
    )


@dataclass
class Cluster:
    """One RayCluster and everything in it."""

    name: str
    template: PoolTemplate
    created_s: float
    up: bool = False
    """Its conductor answers."""
    broken: bool = False
    """It never will."""
    silent_since_s: float | None = None
    told: Told = field(default_factory=Told)
    knows: bool = False
    devices: list[list[str]] = field(default_factory=list)
    """Each pod that is on a node, with the models of its engines."""
    wants: int = 0
    """Pods that no node has room for."""
    handover: Handover | None = None

    def engines(self, model: str) -> int:
        return sum(device.count(model) for device in self.devices)


@dataclass
class RollingWorld:
    devices: int
    models: Sequence[str]
    wanted: str = "a"
    now_s: float = 1000.0
    clusters: list[Cluster] = field(default_factory=list)
    routed: tuple[str, ...] = ()
    broken: frozenset[str] = frozenset()
    """Templates of which no head comes up."""
    busy: bool = False
    """Every engine has a request that does not end: none of them goes."""
    back_off_s: float = math.inf
    """A conductor that has ended is started again after so long at the latest."""
    steps: list[Step] = field(default_factory=list)
    roll: Roll | None = None

    @classmethod
    def serving(cls, devices: int, models: Sequence[str]) -> "RollingWorld":
        """One RayCluster of template `a` with every model warm."""
        world = cls(devices, models)
        for _ in range(12):
            world.look()
            world.live()
        assert all(world.served(model) for model in models), world
        return world

    # what the operator does

    def look(self, up_to: int | None = None) -> Roll:
        """One pass of an operator; with `up_to` it is killed after so many of its writes."""
        self.roll = roll = roll_to(
            template(self.wanted),
            "p",
            [self._seen(cluster) for cluster in self.clusters],
            frozenset(self.routed),
            drain_s=DRAIN_S,
            now_s=self.now_s,
        )
        writes = [lambda step=step: self._do(step) for step in roll.steps]
        writes += [lambda name=name, told=told: self._tell(name, told) for name, told in roll.told.items()]
        writes += [self._route]
        for write in writes[:up_to]:
            write()
        return roll

    def _do(self, step: Step) -> None:
        self.steps.append(step)
        found = self.named(step.name)
        if isinstance(step, Create):
            assert found is None, f"{step.name} is there already"
            made = Cluster(step.name, template(self.wanted), self.now_s, broken=self.wanted in self.broken)
            self.clusters.append(made)
        elif isinstance(step, Delete) and found is not None:
            self.clusters.remove(found)
        elif isinstance(step, Note) and found is not None:
            found.handover = step.handover

    def _tell(self, name: str, told: Told) -> None:
        found = self.named(name)
        if found is not None and found.up:
            found.told, found.knows = told, True

    def _route(self) -> None:
        assert self.roll is not None
        self.routed = self.roll.routed

    # what lives by itself

    def live(self) -> None:
        """One second or so: conductors start, engines start and end, pods come and go."""
        for cluster in self.clusters:
            self._start(cluster)
            if cluster.up and cluster.knows:
                self._conduct(cluster)
        for cluster in self.clusters:
            self._schedule(cluster)

    def silence(self, index: int) -> None:
        cluster = self.clusters[index % len(self.clusters)]
        cluster.up, cluster.silent_since_s = False, self.now_s

    def wait(self, time_s: float) -> None:
        """Nothing happens meanwhile, but that silent conductors are started again."""
        self.now_s += time_s
        for cluster in self.clusters:
            if cluster.silent_since_s is not None and self.now_s >= cluster.silent_since_s + self.back_off_s:
                self._start(cluster)

    def _start(self, cluster: Cluster) -> None:
        cluster.up, cluster.silent_since_s = not cluster.broken, None

    def _conduct(self, cluster: Cluster) -> None:
        told = cluster.told
        if told.draining and self.busy:
            return
        if told.without_models:
            cluster.devices = [[] for _ in cluster.devices]
        elif told.draining:
            keep = told.keep_devices.get(GROUP, len(cluster.devices))
            cluster.devices = [device if index < keep else [] for index, device in enumerate(cluster.devices)]
        if told.draining:
            cluster.devices = [device for device in cluster.devices if device]  # `leaving`: empty pods go
            cluster.wants = 0
            return
        lacking = [model for model in self.models if self._needs(cluster, model) and not cluster.engines(model)]
        for model in lacking:
            device = next((item for item in cluster.devices if len(item) < ENGINES_PER_DEVICE), None)
            if device is not None:
                device.append(model)
        lacking = [model for model in lacking if not cluster.engines(model)]
        cluster.wants = 1 if lacking else 0

    def _needs(self, cluster: Cluster, model: str) -> bool:
        """It is to be warm there, or nobody serves it and its requests wait."""
        return bool(cluster.told.warm.get(model)) or (cluster.name in self.routed and not self.served(model))

    def _schedule(self, cluster: Cluster) -> None:
        used = sum(len(item.devices) for item in self.clusters)
        if cluster.wants and used < self.devices:
            cluster.devices.append([])
            cluster.wants = 0

    def _seen(self, cluster: Cluster) -> ClusterSeen:
        known = () if cluster.told.without_models else self.models
        ready = {model: cluster.engines(model) for model in known}
        conductor = status(
            ready,
            draining=cluster.told.draining,
            engines=sum(len(device) for device in cluster.devices),
            generation=1 if cluster.knows else 0,
            pending=cluster.wants,
            devices=len(cluster.devices),
            empty=sum(not device for device in cluster.devices),
        )
        return ClusterSeen(
            name=cluster.name,
            created_s=cluster.created_s,
            template=cluster.template,
            handover=cluster.handover,
            conductor=conductor if cluster.up else None,
            told_warm=cluster.told.warm if cluster.up else {},
            told_to_go=cluster.told.without_models if cluster.up else False,
            workers=Workers(placed={GROUP: len(cluster.devices)}, waiting={GROUP: cluster.wants}),
            problem="ImagePullBackOff" if cluster.broken else "",
        )

    # what a test asks

    def named(self, name: str) -> Cluster | None:
        return next((cluster for cluster in self.clusters if cluster.name == name), None)

    def served(self, model: str) -> bool:
        """An engine has it, in a RayCluster that gateways follow."""
        return any(cluster.engines(model) for cluster in self.clusters if cluster.name in self.routed)

    def settle(self, most: int = 400) -> int:
        """Looks until nothing is left to do; how many there were. Time passes as it does for a patient operator."""
        self.busy = False
        for count in range(most):
            roll = self.look()
            if roll.phase == "Settled" and not roll.steps:
                return count
            self.live()
            self.now_s += max(1.0, min(roll.look_again_s or 1.0, 60.0))
        raise AssertionError(f"nothing settled: {self.roll}")
