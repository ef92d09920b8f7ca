"""Worker groups that grow: the pods that are asked for, and the groups that do not get them. Pure.

A pod brings one device. Which pods are needed is worked out anew in each decision, by filling devices that do not
exist yet: so two models that fit on one device wait for one pod, and a model that finds another place asks for none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cotenant_serving.conductor.world import GroupMemory, World
from cotenant_serving.contract import EngineSpec, GroupStatus, Reason, WorkerGroup

UNAVAILABLE_S = 300.0
"""So long other groups are tried first once a pod of this one did not come."""

_NO_MEMORY = GroupMemory()


@dataclass(slots=True)
class Pods:
    """The devices to come, filled model by model while one decision is made."""

    world: World
    memory: Mapping[str, GroupMemory]
    room: dict[str, list[int]]
    """group → free bytes of each device to come."""

    @classmethod
    def of(cls, world: World) -> "Pods":
        groups = world.desired.groups if world.desired else ()
        missing = {group.name: _least(group, world) - len(world.devices_of(group.name)) for group in groups}
        room = {group.name: [group.memory_bytes] * max(0, missing[group.name]) for group in groups}
        return cls(world, remember(world), room)

    def put(self, spec: EngineSpec, *, available: bool) -> str | None:
        """The group whose next pod has room for the engine; None when none may have one.

        `available`: only groups that are (True), or only those whose pods did not come (False).
        """
        for candidate in spec.candidates:
            group = self.world.group(candidate.group)
            if group is None or self.unavailable(group.name) is available:
                continue
            if self._fill(group, candidate.share_bytes):
                return group.name
        return None

    def unavailable(self, group: str) -> bool:
        memory = self.memory.get(group, _NO_MEMORY)
        return self.world.now_s < memory.unavailable_until_s

    def pending_s(self, group: str) -> float:
        since_s = self.memory.get(group, _NO_MEMORY).pending_since_s
        return 0.0 if since_s is None else self.world.now_s - since_s

    @property
    def asked(self) -> dict[str, int]:
        return {group: len(devices) for group, devices in self.room.items() if devices}

    def _fill(self, group: WorkerGroup, share_bytes: int) -> bool:
        coming = self.room[group.name]
        fitting = [index for index, free in enumerate(coming) if free >= share_bytes]
        if fitting:
            tightest = min(fitting, key=lambda index: coming[index])
            coming[tightest] -= share_bytes
            return True
        there = len(self.world.devices_of(group.name)) + len(coming)
        if there >= group.max_devices or share_bytes > group.memory_bytes:
            return False
        coming.append(group.memory_bytes - share_bytes)
        return True


def _least(group: WorkerGroup, world: World) -> int:
    """Devices that the group has whatever is asked for; a cluster that drains gives them away, and asks for none."""
    return 0 if world.desired and world.desired.draining else group.min_devices


def remember(world: World) -> dict[str, GroupMemory]:
    """A group that got a device since the last look is available, and starts waiting anew for the next one."""
    memory = {}
    for group in world.desired.groups if world.desired else ():
        known = world.groups.get(group.name, _NO_MEMORY)
        devices = len(world.devices_of(group.name))
        if devices > known.devices:
            known = GroupMemory(devices=devices)
        elif _overdue(known, world):
            known = replace(known, unavailable_until_s=world.now_s + UNAVAILABLE_S)
        memory[group.name] = replace(known, devices=devices)
    return memory


def waiting(pods: Pods) -> dict[str, GroupMemory]:
    """The memory with what is pending after the decision."""
    now_s, asked = pods.world.now_s, pods.asked
    return {
        name: replace(known, pending_since_s=(known.pending_since_s or now_s) if name in asked else None)
        for name, known in pods.memory.items()
    }


def statuses(pods: Pods, memory: Mapping[str, GroupMemory]) -> tuple[GroupStatus, ...]:
    groups = pods.world.desired.groups if pods.world.desired else ()
    return tuple(_status(pods, group, memory[group.name]) for group in groups)


def describe(pods: Pods, group: str) -> str:
    """The pods of a group that are to come, in words."""
    count, pending_s = pods.asked.get(group, 0), pods.pending_s(group)
    some = f"{count} pods" if count > 1 else "a pod"
    if not pods.unavailable(group):
        return f"waits for {some} of group {group}, asked for {pending_s:.0f} s ago"
    waited_s = max(pending_s, pods.world.pod_timeout_s)  # asked for anew, the time of the first try counts
    return (
        f"{some} of group {group} did not come in {waited_s:.0f} s: probably no node has such a device free; "
        f"`kubectl describe` of the pending pod says what it waits for"
    )


def _status(pods: Pods, group: WorkerGroup, memory: GroupMemory) -> GroupStatus:
    world, pending = pods.world, pods.asked.get(group.name, 0)
    devices = world.devices_of(group.name)
    unavailable_s = max(0.0, memory.unavailable_until_s - world.now_s)
    reason = None
    if pending:
        reason = Reason.NO_NODE if unavailable_s else Reason.POD_PENDING
    return GroupStatus(
        group=group.name,
        devices=len(devices),
        empty=sum(not world.engines_on(device) for device in devices),
        max_devices=group.max_devices,
        pending=pending,
        pending_s=round(pods.pending_s(group.name), 1),
        reason=reason,
        message=describe(pods, group.name) if pending else "",
        unavailable_s=round(unavailable_s, 1),
    )


def _overdue(known: GroupMemory, world: World) -> bool:
    since_s = known.pending_since_s
    return since_s is not None and world.now_s - since_s >= world.pod_timeout_s
