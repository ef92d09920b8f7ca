"""What engines, gateways and Serve have said, folded into the `World` that `decide` reads.

Owns the heartbeats, the demand, the placements and the list of instances that are gone. Every method takes
the time as an argument; nothing here does I/O.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from cotenant_serving.conductor.load_times import LoadTimes
from cotenant_serving.conductor.world import HEARTBEAT_TIMEOUT_S, AppStatus, Engine, EnginePhase, Failure
from cotenant_serving.contract import EngineArgs, EngineSpec, Heartbeat, Reason
from cotenant_serving.contract_gateway import Demand, EngineRow, ModelDemand

DEMAND_TIMEOUT_S = 5.0
"""A gateway that has not reported for this long has no demand any more."""
SILENCE_S = 120.0
"""An engine without a heartbeat for this long blocks its device for nothing: Serve does not watch constructors."""
POD_SILENCE_S = 60.0
"""Engines speak twice a second: a pod from which none has spoken for this long has none, or none that serves."""
_MOST_GONE = 200


@dataclass(frozen=True, slots=True)
class App:
    """One app as Serve reports it."""

    status: AppStatus
    message: str = ""


@dataclass(slots=True)
class _Record:
    """What is known about one app."""

    args: EngineArgs
    since_s: float
    busy_s: float
    """When it last had a request."""
    beat: Heartbeat | None = None
    beat_s: float = 0.0
    deleting: bool = False


class Observed:
    def __init__(self, placements: Mapping[str, EngineArgs], *, now_s: float) -> None:
        self._records = {app: _Record(args, now_s, now_s) for app, args in placements.items()}
        self._demand: dict[str, tuple[Demand, float]] = {}
        self._gone: OrderedDict[str, bool] = OrderedDict()
        """instance → whether it left for good (deleted), so that its late heartbeats count no more."""
        self._silent: set[str] = set()
        """Of those: nobody heard them end, as when their node is lost."""
        self._strangers: dict[str, Heartbeat] = {}
        self._unheard: dict[str, float] = {}
        """Apps without a record, of which no engine has spoken → since when."""
        self._pods: dict[str, float] = {}
        """Pod → when an engine last spoke from there, also one that is gone or that nobody knows."""
        self._listens_since_s = now_s
        self.loads = LoadTimes()
        """What engines' loads have taken."""

    def started(self, args: EngineArgs, now_s: float) -> None:
        self._strangers.pop(args.app, None)
        self._records[args.app] = _Record(args, now_s, now_s)

    def deleting(self, app: str) -> None:
        record = self._records.get(app)
        if record is None:
            return  # one that nobody has heard of: there is nothing to remember of it
        record.deleting = True
        if record.beat:
            self._leave(record.beat.instance, for_good=True)

    def heard(self, beat: Heartbeat, now_s: float) -> bool:
        """Take a heartbeat in; True when it changes what there is to decide."""
        if beat.pod:
            self._pods[beat.pod] = now_s
        record = self._records.get(beat.app)
        if record is None:
            self._strangers[beat.app] = beat
            return True
        self._silent.discard(beat.instance)
        if self._gone.get(beat.instance) and not record.deleting:
            return False  # the app's name is in use again; this is the process before
        before = record.beat
        if before and before.instance != beat.instance:
            self._leave(before.instance, for_good=True)
        elif not record.deleting:
            self._gone.pop(beat.instance, None)
        if beat.running or (before and beat.requests_total != before.requests_total):
            record.busy_s = now_s
        if before is None or (before.instance, before.state) != (beat.instance, beat.state):
            self.loads = self.loads.learned(beat)
        was_lost = now_s - record.beat_s > HEARTBEAT_TIMEOUT_S
        record.beat, record.beat_s = beat, now_s
        return before is None or was_lost or _news(before, beat)

    def overslept(self, for_s: float, now_s: float) -> None:
        """This process stood still: what was said in that time could not be heard, so nobody was silent in it."""
        for record in self._records.values():
            record.beat_s = min(now_s, record.beat_s + for_s)
        self._listens_since_s = min(now_s, self._listens_since_s + for_s)
        self._pods = {pod: min(now_s, at_s + for_s) for pod, at_s in self._pods.items()}
        self._demand = {gateway: (demand, min(now_s, at + for_s)) for gateway, (demand, at) in self._demand.items()}

    def demanded(self, demand: Demand, now_s: float) -> bool:
        """Take a gateway's demand in; True when a model's demand or its waiting line begins or ends."""
        before = self._demand.get(demand.gateway)
        self._demand[demand.gateway] = (demand, now_s)
        return before is None or _shape(before[0]) != _shape(demand)

    def reconcile(self, apps: Mapping[str, App], now_s: float) -> None:
        """Serve's list is the truth about which apps exist: forget what is gone, adopt what runs unknown."""
        for app in [app for app in self._records if apps.get(app, _ABSENT).status == "absent"]:
            record = self._records.pop(app)
            if record.beat:
                self._leave(record.beat.instance, for_good=True)
        for app in self._strangers.keys() & apps.keys() - self._records.keys():
            beat = self._strangers[app]
            self._records[app] = _Record(_adopted(beat), now_s, now_s, beat, now_s)
            self.loads = self.loads.learned(beat)
        self._unheard = {app: self._unheard.get(app, now_s) for app in apps.keys() - self._records.keys()}
        self._strangers = {}  # engines speak twice a second: who lives is heard again

    def engines(self, apps: Mapping[str, App], now_s: float) -> tuple[Engine, ...]:
        return tuple(self._engine(record, apps, now_s) for record in self._records.values())

    def strangers(self, now_s: float) -> dict[str, float]:
        """Apps that somebody else started, or we before we lost our state → seconds without a word of them."""
        return {app: now_s - since_s for app, since_s in self._unheard.items()}

    def pods_with_engines(self, now_s: float) -> tuple[str, ...] | None:
        """From which one has spoken in the last minute; None until there was a minute to hear them."""
        self._pods = {pod: at_s for pod, at_s in self._pods.items() if now_s - at_s <= POD_SILENCE_S}
        return tuple(sorted(self._pods)) if now_s - self._listens_since_s > POD_SILENCE_S else None

    def demand(self, now_s: float) -> dict[str, ModelDemand]:
        """Over all gateways that are alive."""
        self._demand = {
            gateway: (demand, at) for gateway, (demand, at) in self._demand.items() if now_s - at < DEMAND_TIMEOUT_S
        }
        total: dict[str, ModelDemand] = {}
        for demand, _ in self._demand.values():
            for model, more in demand.models.items():
                have = total.get(model, ModelDemand())
                total[model] = ModelDemand(running=have.running + more.running, queued=have.queued + more.queued)
        return total

    def settled(self, apps: Mapping[str, App]) -> bool:
        """Has every running app been heard of? Before that a table would lack engines that serve."""
        return all(
            self._records[app].beat is not None
            for app, view in apps.items()
            if view.status == "running" and app in self._records
        )

    def rows(self, engines: tuple[Engine, ...]) -> tuple[EngineRow, ...]:
        return tuple(_row(engine.beat) for engine in engines if engine.phase == "ready" and engine.beat)

    def gone(self) -> tuple[str, ...]:
        return tuple(self._gone)

    def silent(self) -> tuple[str, ...]:
        """Those of `gone` whose heartbeats had stopped before. They may be back unless they are gone for good."""
        return tuple(instance for instance in self._gone if instance in self._silent)

    @property
    def placements(self) -> dict[str, EngineArgs]:
        return {app: record.args for app, record in self._records.items() if not record.deleting}

    def _engine(self, record: _Record, apps: Mapping[str, App], now_s: float) -> Engine:
        phase, failure = _phase(record, apps.get(record.args.app, _ABSENT), now_s)
        if phase == "lost" and record.beat:
            self._leave(record.beat.instance, for_good=False)
        return Engine(
            args=record.args,
            phase=phase,
            beat=record.beat,
            idle_s=now_s - record.busy_s,
            age_s=now_s - record.since_s,
            silent_s=now_s - (record.beat_s if record.beat else record.since_s),
            failure=failure,
        )

    def _leave(self, instance: str, *, for_good: bool) -> None:
        self._gone[instance] = for_good or self._gone.get(instance, False)
        if not for_good:
            self._silent.add(instance)
        while len(self._gone) > _MOST_GONE:
            self._silent.discard(self._gone.popitem(last=False)[0])


_ABSENT = App("absent")


def _phase(record: _Record, app: App, now_s: float) -> tuple[EnginePhase, Failure | None]:
    beat = record.beat
    if record.deleting:
        return "deleting", None
    if beat and beat.state == "failed":
        return "failed", Failure(reason=beat.reason or Reason.LOAD_FAILED, message=beat.message)
    if app.status == "failed":
        return "failed", Failure(reason=Reason.ENGINE_DIED, message=_died(record.args.app, app.message))
    silent_s = now_s - (record.beat_s if beat else record.since_s)
    if silent_s > SILENCE_S:
        return "failed", Failure(reason=Reason.ENGINE_DIED, message=_silent(record.args.app, silent_s))
    if beat is None:
        return "starting", None
    if silent_s > HEARTBEAT_TIMEOUT_S:
        return "lost", None
    phase: EnginePhase = beat.state if beat.state != "failed" else "lost"
    return phase, None


def _shape(demand: Demand) -> dict[str, bool]:
    return {model: one.queued > 0 for model, one in demand.models.items() if one.running + one.queued > 0}


def _silent(app: str, silent_s: float) -> str:
    return f"{app} has not been heard of for {silent_s:.0f} s: it hangs, or it never started. It is started afresh."


def _died(app: str, message: str) -> str:
    detail = message.strip().splitlines()[-1] if message.strip() else "it ended before it could report a cause"
    return f"the process of {app} died while it started: {detail}. Its log says more."


def _news(before: Heartbeat, beat: Heartbeat) -> bool:
    return (before.state, before.instance, before.reason, bool(before.running)) != (
        beat.state,
        beat.instance,
        beat.reason,
        bool(beat.running),
    )


def _row(beat: Heartbeat) -> EngineRow:
    return EngineRow(
        instance=beat.instance,
        model=beat.model,
        revision=beat.revision,
        host=beat.host,
        port=beat.port,
        slots=beat.slots,
        running=beat.running,
        load_s=beat.load_s,
    )


def _adopted(beat: Heartbeat) -> EngineArgs:
    """An engine of an app that this conductor has no record of: its own word is all there is."""
    spec = EngineSpec(
        model=beat.model,
        revision=beat.revision,
        task="generate",
        candidates=(),
        device="cpu",
        concurrency=max(1, beat.slots),
    )
    return EngineArgs(
        app=beat.app,
        spec=spec,
        device_id=beat.device_id,
        device_index=0,
        share_bytes=beat.share_bytes,
        device_bytes=beat.share_bytes,
        conductor_url="",
        pool_token_file="",
    )
