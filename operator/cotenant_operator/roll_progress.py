"""How far one RayCluster is on its way out, and what is next. Pure; `rolling` decides which one goes.

target loads what is warm here ─▶ gateways follow both ─▶ this one finishes its requests ─▶ it is deleted
    └ no node has room for a pod of the target: one device after the other goes from here to there, first
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from cotenant_operator.instants import utc
from cotenant_operator.pool_seen import RollPhase
from cotenant_operator.quantity import show_seconds
from cotenant_operator.roll_world import ClusterSeen, Delete, GroupHandover, Handover, Note, Step, Told
from cotenant_serving.contract import GroupStatus, ModelStatus

ROUTE_SETTLE_S = 10.0
"""After the target's conductor stands in the gateways' configuration: all of them have its table by then."""
LOOK_S = 1.0
"""Until what was decided here is seen to stand in the gateways' configuration."""
TAKE_S = 180.0
"""A device that was given up must be taken by a pod of the target within this, or it goes back."""
WARM_S = 600.0
"""For so long a roll waits for models that find no room in the target, with no pod of it on its way; the next device
for those that load on one that the target was given; and a drain for those that woke where it is to begin."""


_LOADS = ("starting", "waiting", "loading")

SERVES = Told()
GOES = Told(draining=True, without_models=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """What to do about one RayCluster that is not the target."""

    phase: RollPhase
    message: str = ""
    steps: tuple[Step, ...] = ()
    told: Told = SERVES
    warm: Mapping[str, int] = field(default_factory=dict)
    """What the target is to load because of it."""
    route: bool = False
    """Gateways are to follow the target."""
    leaving: bool = False
    look_again_s: float | None = None


def progress(old: ClusterSeen, target: ClusterSeen, *, routed: bool, drain_s: float, now_s: float) -> Progress:
    """`routed`: gateways follow the target already. `drain_s`: the longest that `old` may finish its requests."""
    handover = handover_to(old, target)
    warm = _warm(old, target, handover)
    if not answers(target):
        return _serve_on(old, target, handover, warm)
    if handover is not None and handover.drain_s:
        serves = {} if old.told_to_go else warm_models(old)
        overlooked = Lacking.of(target, dict.fromkeys(serves, 1), now_s=now_s)
        if not routed or (overlooked.models and now_s < handover.since_s + WARM_S):
            return _serve_again(old, handover, warm, overlooked)
        return _drain(old, handover, drain_s=drain_s, now_s=now_s)
    left_s = target.created_s + WARM_S - now_s
    if handover is None and not answers(old) and any(old.workers.placed.values()) and left_s > 0:
        message = f"the conductor of {old.name} does not say what is warm; {target.name} waits for it"
        return Progress("Warming", message, warm=warm, look_again_s=left_s)
    lacking = Lacking.of(target, warm, now_s=now_s)
    if not lacking.models:
        return _finish(old, target, handover, warm, routed=routed, now_s=now_s)
    if any(target.workers.waiting.values()) and not lacking.failed:
        return _give_devices(old, target, handover, warm, lacking, routed=routed, now_s=now_s)
    phase: RollPhase = "Stuck" if lacking.failed else "HandingOver" if handover else "Warming"
    return _going_on(Progress(phase, lacking.message, warm=warm, look_again_s=lacking.look_again_s), handover)


def _warm(old: ClusterSeen, target: ClusterSeen, handover: Handover | None) -> dict[str, int]:
    """model → engines that the target is to have. Of an old one that is silent it has been told already."""
    now = warm_models(old) if answers(old) else target.told_warm
    began = handover.warm if handover else {}
    return {model: max(now.get(model, 0), began.get(model, 0)) for model in {**began, **now}}


def _serve_on(old: ClusterSeen, target: ClusterSeen, handover: Handover | None, warm: Mapping[str, int]) -> Progress:
    """The target does not answer: this one does all the work again, and drains anew when the target is back."""
    why = f"does not come up: {target.problem}" if target.problem else "has no conductor that answers yet"
    steps: tuple[Step, ...] = ()
    if handover is not None and handover.drain_s:
        steps = (Note(old.name, msgspec.structs.replace(handover, drain_s=0.0)),)
    return Progress("Starting", f"{target.name} {why}; {old.name} serves", steps, warm=warm)


def _serve_again(old: ClusterSeen, handover: Handover, warm: Mapping[str, int], overlooked: "Lacking") -> Progress:
    """It was to drain, but only it serves some models (it was silent when that was decided, and is back; or they woke
    meanwhile), or gateways do not follow the target any more: what is to come before a drain begins anew."""
    undone = msgspec.structs.replace(handover, drain_s=0.0, warm=warm)
    phase: RollPhase = "Stuck" if overlooked.failed else "Warming"
    found = Progress(phase, overlooked.message, (Note(old.name, undone),), warm=warm, look_again_s=LOOK_S)
    return _going_on(found, handover)


def handover_to(old: ClusterSeen, target: ClusterSeen) -> Handover | None:
    return old.handover if old.handover is not None and old.handover.target == target.name else None


def answers(cluster: ClusterSeen) -> bool:
    """Whether its conductor knows what is desired, and what runs."""
    status = cluster.conductor
    return status is not None and status.generation > 0 and status.reconciled


def warm_models(cluster: ClusterSeen) -> dict[str, int]:
    """model → engines that are ready."""
    models = cluster.conductor.models if cluster.conductor is not None else ()
    return {model.model: model.ready_engines for model in models if model.ready_engines}


@dataclass(frozen=True, slots=True)
class Lacking:
    """Warm models that the target does not have ready yet."""

    models: tuple[str, ...]
    failed: bool
    message: str
    look_again_s: float | None

    @classmethod
    def of(cls, target: ClusterSeen, warm: Mapping[str, int], *, now_s: float) -> "Lacking":
        status = target.conductor
        assert status is not None  # it answers
        rows = {model.model: model for model in status.models}
        pending = any(target.workers.waiting.values()) or any(group.pending for group in status.groups)
        wanted = {name: count for name, count in warm.items() if name in rows}  # the others are not desired any more
        lacking = [rows[name] for name, count in wanted.items() if not _has(rows[name], count, pending=pending)]
        left_s = target.created_s + WARM_S - now_s
        if left_s <= 0 and not pending:
            lacking = [row for row in lacking if row.state != "waiting"]
        failed = [row for row in lacking if row.state == "failed"]
        loaded = f"{len(wanted) - len(lacking)} of {len(wanted)} warm models are loaded in {target.name}"
        why = f"{failed[0].model} does not load there: {failed[0].reason}: {failed[0].message}" if failed else ""
        return cls(
            tuple(row.model for row in lacking),
            bool(failed),
            f"{loaded}; {why}" if why else loaded,
            left_s if left_s > 0 else None,
        )


def _has(row: ModelStatus, wanted: int, *, pending: bool) -> bool:
    """All engines that were warm, or as many as there will be."""
    if row.ready_engines >= wanted:
        return True
    nothing_comes = not pending and all(engine.state == "ready" for engine in row.engines)
    return row.ready_engines > 0 and nothing_comes


def _finish(
    old: ClusterSeen,
    target: ClusterSeen,
    handover: Handover | None,
    warm: Mapping[str, int],
    *,
    routed: bool,
    now_s: float,
) -> Progress:
    """Everything warm is there: gateways first, then this one drains."""
    message = f"gateways begin to follow {target.name}"
    if not routed:
        return _going_on(Progress("Warming", message, warm=warm, route=True, look_again_s=LOOK_S), handover)
    began = handover or Handover(target=target.name, since_s=now_s, warm=warm)
    drains = msgspec.structs.replace(began, warm=warm, drain_s=now_s + ROUTE_SETTLE_S)
    return _going_on(
        Progress("Draining", message, (Note(old.name, drains),), warm=warm, look_again_s=ROUTE_SETTLE_S), handover
    )


def _drain(old: ClusterSeen, handover: Handover, *, drain_s: float, now_s: float) -> Progress:
    if now_s < handover.drain_s:
        left_s = handover.drain_s - now_s
        message = f"gateways begin to follow {handover.target}"
        return _going_on(Progress("Draining", message, warm=handover.warm, look_again_s=left_s), handover)
    if reason := _done(old, handover, drain_s=drain_s, now_s=now_s):
        return Progress("Draining", reason, (Delete(old.name, reason),), told=GOES, leaving=True)
    end_s = handover.drain_s + drain_s
    # Nothing that counts down: each look would be another text, and so a write.
    message = f"{old.name} finishes its requests, until {utc(end_s)} at the latest"
    return Progress("Draining", message, told=GOES, leaving=True, look_again_s=end_s - now_s)


def _done(old: ClusterSeen, handover: Handover, *, drain_s: float, now_s: float) -> str:
    if now_s >= handover.drain_s + drain_s:
        return f"{old.name} had {show_seconds(drain_s)} to finish its requests"
    if any(old.workers.placed.values()):
        # Its autoscaler takes empty pods away at once. Deleted together with their head, they would try for minutes
        # to tell it that they go, and hold their devices.
        return ""
    conductor = old.conductor
    if conductor is not None and not (conductor.draining and conductor.reconciled):
        return ""
    if conductor is not None and conductor.engines == 0:
        return f"the last request of {old.name} has ended"
    # Ray goes on listing the engine of a node that was lost, for as long as that may finish its requests.
    return "" if any(old.workers.ending.values()) else f"{old.name} has no worker pod left"


def _going_on(found: Progress, handover: Handover | None) -> Progress:
    """With what an unfinished hand-over keeps in force."""
    keep = {name: group.keep for name, group in handover.groups.items() if not group.refused} if handover else {}
    if not keep:
        return found
    return replace(found, told=Told(draining=True, keep_devices=keep), leaving=True)


def _give_devices(
    old: ClusterSeen,
    target: ClusterSeen,
    handover: Handover | None,
    warm: Mapping[str, int],
    lacking: Lacking,
    *,
    routed: bool,
    now_s: float,
) -> Progress:
    """No node has room for a pod of the target: it gets a device from here, then the next when that is taken."""
    message = f"{lacking.message}; no node has room for its pods ({target.workers.waiting_message})"
    found = Progress("HandingOver", message, warm=warm)
    if not routed:
        return _going_on(replace(found, route=True, look_again_s=LOOK_S), handover)
    began = handover or Handover(target=target.name, since_s=now_s, warm=warm)
    groups = next_groups(began.groups, old, target, lacking.models, now_s=now_s)
    after = msgspec.structs.replace(began, groups=groups, warm=warm)
    steps = (Note(old.name, after),) if groups and (handover is None or groups != handover.groups) else ()
    if groups and all(group.refused for group in groups.values()):
        taken_back = f"{message}; a device that {old.name} gave up was not taken, so it keeps the others"
        return Progress("Stuck", taken_back, steps, warm=warm, route=True)
    if not groups:
        return replace(found, phase="Warming", look_again_s=lacking.look_again_s)
    ends = [group.freed_s + wait_s for group in groups.values() if group.freed_s for wait_s in (TAKE_S, WARM_S)]
    look_again_s = min((end_s - now_s for end_s in ends if end_s > now_s), default=None)
    return _going_on(replace(found, steps=steps, look_again_s=look_again_s), after)


def next_groups(
    groups: Mapping[str, GroupHandover],
    old: ClusterSeen,
    target: ClusterSeen,
    lacking: Collection[str],
    *,
    now_s: float,
) -> dict[str, GroupHandover]:
    """The hand-over of each group after this look. At most one device is on its way.

    `lacking`: warm models that the target has to load yet. Their engines here stay until those there are ready.
    """
    after = {name: _watch(group, name, old, target, now_s=now_s) for name, group in groups.items()}
    if any(_on_its_way(group, name, target, lacking, now_s=now_s) for name, group in after.items()):
        return after
    for name, waiting in target.workers.waiting.items():
        left = min(devices(old, name), after[name].keep) if name in after else devices(old, name)
        if waiting and left > 0 and not (name in after and after[name].refused):
            placed = target.workers.placed.get(name, 0)
            return {**after, name: GroupHandover(keep=left - 1, since_s=now_s, placed=placed)}
    return after


def _watch(group: GroupHandover, name: str, old: ClusterSeen, target: ClusterSeen, *, now_s: float) -> GroupHandover:
    taken = target.workers.placed.get(name, 0) > group.placed
    if not taken and (devices(old, name) > group.keep or group.refused):
        return group
    if not group.freed_s:
        return msgspec.structs.replace(group, freed_s=now_s, refused=False)
    return msgspec.structs.replace(group, refused=not taken and now_s >= group.freed_s + TAKE_S)


def _on_its_way(
    group: GroupHandover, name: str, target: ClusterSeen, lacking: Collection[str], *, now_s: float
) -> bool:
    """Until a pod of the target has it and has loaded what it can: nobody else may serve that."""
    if group.refused:
        return False
    if target.workers.placed.get(name, 0) <= group.placed:
        return True
    if target.conductor is None or now_s >= group.freed_s + WARM_S:
        return False
    row = next((item for item in target.conductor.groups if item.group == name), GroupStatus(group=name))
    if row.devices < target.workers.placed.get(name, 0):
        return True  # the pod has not joined Ray yet
    if row.empty and now_s < group.freed_s + TAKE_S:
        return True
    models = [model for model in target.conductor.models if model.model in lacking]
    return any(engine.state in _LOADS for model in models for engine in model.engines)


def devices(cluster: ClusterSeen, group: str) -> int:
    """What a RayCluster holds of a group's devices: pods on nodes, which hold them until they have ended."""
    return cluster.workers.placed.get(group, 0) + cluster.workers.ending.get(group, 0)
