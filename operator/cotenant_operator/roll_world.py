"""What rolling a pool looks at, and what it says is to be done. Frozen values; `rolling.plan_roll` decides.

Nothing is remembered in a process: all that outlives a pass stands in Kubernetes, as the `Handover` on a RayCluster
that is on its way out, and in the Secret that gateways read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cotenant_operator.pool_seen import RollPhase
from cotenant_operator.render.pool_template import PoolTemplate
from cotenant_serving.contract import PoolStatus


class GroupHandover(msgspec.Struct, frozen=True):
    """Devices of one worker group that go from the old RayCluster to the new one, one by one."""

    keep: int
    """Devices that the old one may keep now."""
    since_s: float
    """When `keep` last changed, Unix seconds."""
    placed: int
    """Pods of the group that the new one had on nodes then: the next device goes only when it has more."""
    freed_s: float = 0.0
    """When the old one was seen to hold no more than `keep`, Unix seconds; 0: not yet."""
    refused: bool = False
    """The new one did not take the device that was given up: the old one has it back, and keeps the others."""


class Handover(msgspec.Struct, frozen=True):
    """How far a RayCluster is on its way out: an annotation on it, `cluster_names.ROLL_ANNOTATION`."""

    target: str
    """Name of the RayCluster that takes over."""
    since_s: float
    """When it began, Unix seconds: gateways follow both from then on."""
    warm: Mapping[str, int] = {}
    """model → engines that were ready here when it began, or at a step since then, the most of them: what the target
    loads."""
    groups: Mapping[str, GroupHandover] = {}
    drain_s: float = 0.0
    """When it was told to finish its requests and start none, Unix seconds; 0: not yet."""

    def to_json(self) -> str:
        return msgspec.json.encode(self, order="sorted").decode()


def handover_from_json(text: str) -> Handover | None:
    """What `to_json` wrote; None for anything else."""
    try:
        return msgspec.json.decode(text, type=Handover)
    except msgspec.MsgspecError:
        return None


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker pods of one RayCluster, by group."""

    placed: Mapping[str, int] = field(default_factory=dict)
    """On a node and not ending: they have their device."""
    ending: Mapping[str, int] = field(default_factory=dict)
    """On a node and ending: they hold their device until they are gone."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """No node has room for them (`Unschedulable`)."""
    waiting_message: str = ""
    """What the scheduler says about one that waits."""


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """One RayCluster of the pool, as it is now."""

    name: str
    created_s: float
    """Unix seconds."""
    template: PoolTemplate | None = None
    """What its pods are made from (`cluster_names.TEMPLATE_ANNOTATION`); None when nothing says so."""
    deleting: bool = False
    handover: Handover | None = None
    conductor: PoolStatus | None = None
    """None: it does not answer."""
    told_warm: Mapping[str, int] = field(default_factory=dict)
    """`Desired.warm` as its conductor was told last, by whichever operator; empty while it does not answer."""
    told_to_go: bool = False
    """It was told last to serve no model: what it says of models may be older than that."""
    workers: Workers = Workers()
    problem: str = ""
    """Why its head does not come up, for people: an image that cannot be pulled, a quota. Empty: nothing is known."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make the RayCluster and the Service of its conductor."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """Write the annotation `ROLL_ANNOTATION` on the RayCluster; None takes it away."""

    name: str
    handover: Handover | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the RayCluster; its pods, Services and Secrets follow by their owner."""

    name: str
    reason: str


Step = Create | Note | Delete


@dataclass(frozen=True, slots=True)
class Told:
    """What one conductor is told beside groups and models: fields of `contract.Desired`."""

    warm: Mapping[str, int] = field(default_factory=dict)
    draining: bool = False
    keep_devices: Mapping[str, int] = field(default_factory=dict)
    without_models: bool = False
    """Send no models: every engine goes after its last request."""


@dataclass(frozen=True, slots=True)
class Roll:
    """The whole decision of one pass. Doing it twice changes nothing the second time."""

    target: str
    """The RayCluster that is, or will be, as the pool says. The only one whose spec is kept up to date."""
    phase: RollPhase
    message: str = ""
    steps: tuple[Step, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)
    """For every RayCluster whose conductor gets desired state, `target` too."""
    routed: tuple[str, ...] = ()
    """RayClusters whose conductors gateways follow."""
    leaving: tuple[str, ...] = ()
    """RayClusters that keep no pod without engines: `render.raycluster.leaving` is their spec now."""
    look_again_s: float | None = None
    """Look again after so long although no event comes; None: events suffice."""
