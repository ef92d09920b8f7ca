"""The conductor's decision: which model runs where, now. Pure: `World → Decision`.

One pass, in this order:
 1. failures: an engine that reports a failure, or that Serve gave up, is deleted and its model backs off; one whose
    device has left is deleted too, and its model is placed anew;
 2. wanted: demand and `replicas` say how many engines each model should have;
 3. surplus: old revisions that are replaced, idle engines, engines of models that are not desired go, and those on
    nodes that are being drained once others do their work;
 4. starts: what is missing is placed by bytes (`place`), at most one start per device at a time, and pods are asked
    for (`groups`) where no device has room. A cluster that is drained starts nothing and gives way (`handover`).
The same world always gives the same decision, and a settled world gives an empty one.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cotenant_serving.conductor import groups, place
from cotenant_serving.conductor.explain import model_status
from cotenant_serving.conductor.handover import handed_over
from cotenant_serving.conductor.world import (
    ADOPTION_S,
    Decision,
    Delete,
    Engine,
    ModelMemory,
    ModelView,
    World,
)
from cotenant_serving.contract import EngineSpec, ModelStatus
from cotenant_serving.contract_gateway import ModelDemand

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 30.0
"""A cause that went away is noticed within half a minute, and a broken model costs one start per half minute."""

STRANGER_S = 60.0
"""An app of which nothing is known and nothing is heard for so long goes: it may hold a device."""

_NO_DEMAND = ModelDemand()
_NO_MEMORY = ModelMemory()


def decide(world: World) -> Decision:
    """What to start, what to delete, what to remember, and how each model stands."""
    memory = _remember(world)
    if world.desired is None:
        return Decision(memory=memory)
    for index in range(len(world.desired.models)):
        view = _view(world, memory, index)
        memory[view.name] = _note_surplus(view)
    views = [_view(world, memory, index) for index in range(len(world.desired.models))]
    deletes = _once(
        [*_failed_apps(world), *_stranded(world), *_orphans(world), *_strangers(world), *handed_over(world)]
    )
    going = {delete.app for delete in deletes}
    for view in views:
        deletes.extend(delete for delete in (*_left_behind(view), *_surplus(view)) if delete.app not in going)
    needs = {view.name: needed(view) for view in views}
    placing = place.Placing.of(world, going={delete.app for delete in deletes}, needs=needs)
    outcomes: dict[str, place.Outcome] = {}
    more: list[tuple[EngineSpec, int]] = []
    for view in sorted(views, key=_urgency):
        spec = None if world.desired.draining or _adopting(world) else missing(view)
        if spec is None:
            continue
        outcome = placing.put(view, spec, may_evict=asked_for(view), may_grow=may_grow(view))
        outcomes[view.name] = outcome
        if may_grow(view) and spec is view.desired.engine:
            more.append((spec, wanted(view) - len(present(view)) - 1))
        if outcome.in_place:
            memory[view.name] = replace(memory[view.name], fallback=outcome.in_place)
    for spec, count in more:
        for _ in range(count):
            placing.foresee(spec)
    deletes.extend(placing.evictions)
    remembered = groups.waiting(placing.pods)
    return Decision(
        starts=tuple(placing.starts),
        deletes=tuple(deletes),
        memory=memory,
        models=tuple(_status(world, view, outcomes.get(view.name)) for view in views),
        pods=placing.pods.asked,
        groups=remembered,
        group_statuses=groups.statuses(placing.pods, remembered),
    )


def wanted(view: ModelView) -> int:
    """Engines that the model should have: what it needs now, and one while its demand is recent.

    Demand within the last `idle_after_s` keeps one: waking again costs more than waiting.
    """
    return max(needed(view), min(int(_recent_demand(view)), view.desired.max_engines))


def needed(view: ModelView) -> int:
    """Engines for the requests that are here now: demand over slots, at least `min`, at most `max`."""
    desired = view.desired
    by_demand = math.ceil((view.demand.running + view.demand.queued) / _slots(view))
    return max(view.floor, min(by_demand, desired.max_engines))


def missing(view: ModelView) -> EngineSpec | None:
    """The engine to start next for this model, or None when it has what it wants or must not try now.

    Demand that is over keeps an engine and lets a failed start or a new revision try again; it wakes nothing.
    """
    if not (asked_for(view) or view.alive or view.failed_target):
        return None
    spec = view.desired.engine
    if spec is not None and len(present(view)) < wanted(view) and not _backing_off(view):
        return spec
    fallback = view.memory.fallback
    if fallback and view.failed_target and wanted(view) > 0 and not view.alive:
        return fallback
    return None


def asked_for(view: ModelView) -> bool:
    """Is a request here now, or an engine missing that `min` promises, or soon, with its node? Only then may others
    make room."""
    return view.demand.running + view.demand.queued > 0 or len(view.staying) < view.floor


def may_grow(view: ModelView) -> bool:
    """May a pod be brought for it? For requests, for a new revision of a model that always has an engine, and for
    what a drained node takes along."""
    return asked_for(view) or view.floor > 0 or bool(view.leaving)


def present(view: ModelView) -> tuple[Engine, ...]:
    """Engines of the target revision that serve, are about to, or were lost and come back; and that stay."""
    gone = view.missed | view.leaving
    return tuple(engine for engine in view.of_revision(view.target) if engine.args.app not in gone)


def _remember(world: World) -> dict[str, ModelMemory]:
    models = world.desired.models if world.desired else ()
    names = {model.name for model in models} if models else set(world.memory)
    memory = {name: world.memory.get(name, _NO_MEMORY) for name in names}
    for name, demand in world.demand.items():
        if name in memory and demand.running + demand.queued > 0:
            memory[name] = replace(memory[name], last_demand_s=world.now_s)
    for engine in world.engines:
        if engine.model in memory:
            memory[engine.model] = _learn(memory[engine.model], engine, world)
    for model in models:
        memory[model.name] = _forget_old_failure(memory[model.name], model.engine)
    return memory


def _learn(known: ModelMemory, engine: Engine, world: World) -> ModelMemory:
    if engine.phase == "failed" and engine.failure:
        again = known.failures if known.failed_revision == engine.revision else 0
        pause_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0**again)
        return replace(
            known,
            failed_revision=engine.revision,
            failure=engine.failure,
            failures=again + 1,
            retry_at_s=world.now_s + pause_s,
        )
    if engine.phase == "ready" and engine.beat:
        known = replace(known, load_s=engine.beat.load_s or known.load_s)
        if known.failed_revision == engine.revision:
            known = replace(known, failed_revision="", failure=None, failures=0, retry_at_s=0.0)
        if known.fallback and known.fallback.revision != engine.revision:
            known = replace(known, fallback=None)
    return known


def _note_surplus(view: ModelView) -> ModelMemory:
    """Since when there are more engines than wanted: light traffic spreads, so that none of them is ever idle."""
    if sum(engine.phase == "ready" for engine in view.staying) <= wanted(view):
        return replace(view.memory, surplus_since_s=None)
    since_s = view.memory.surplus_since_s
    return replace(view.memory, surplus_since_s=view.now_s if since_s is None else since_s)


def _forget_old_failure(known: ModelMemory, target: EngineSpec | None) -> ModelMemory:
    """A failure counts against the revision that failed; a new one starts with a clean sheet."""
    if target is not None and known.failure and known.failed_revision != target.revision:
        return replace(known, failed_revision="", failure=None, failures=0, retry_at_s=0.0)
    return known


def _view(world: World, memory: Mapping[str, ModelMemory], index: int) -> ModelView:
    assert world.desired is not None
    desired = world.desired.models[index]
    engines = tuple(engine for engine in world.engines if engine.model == desired.name)
    return ModelView(
        desired=desired,
        engines=engines,
        demand=world.demand.get(desired.name, _NO_DEMAND),
        memory=memory[desired.name],
        now_s=world.now_s,
        warm=world.desired.warm.get(desired.name, 0),
        missed=frozenset(engine.args.app for engine in engines if world.missed(engine)),
        leaving=frozenset(engine.args.app for engine in engines if world.leaves(engine)),
        on_disk=_on_disk(world, engines),
        downloads=world.downloads(desired.engine) if desired.engine else None,
        loads=world.loads,
    )


def _on_disk(world: World, engines: Iterable[Engine]) -> dict[str, bool]:
    coming = [engine for engine in engines if engine.phase != "ready"]
    if not coming:
        return {}
    devices = {device.id: device for device in world.devices}
    where = ((engine, devices.get(engine.args.device_id)) for engine in coming)
    known = (
        (engine.args.app, engine.has_files or world.on_disk(engine.args.spec, device))
        for engine, device in where
        if device is not None
    )
    return {app: here for app, here in known if here is not None}


def _failed_apps(world: World) -> Iterable[Delete]:
    for engine in world.engines:
        if engine.phase == "failed" and engine.failure:
            yield Delete(app=engine.args.app, why=f"{engine.failure.reason}: {engine.failure.message}")


def _stranded(world: World) -> Iterable[Delete]:
    """Its node left while it started, or took it along: Serve would wait for that node for ever."""
    assert world.desired is not None
    known = {group.name for group in world.desired.groups}
    there = {device.id for device in world.devices}
    for engine in world.engines:
        device_id = engine.args.device_id
        left = device_id not in there and known.issuperset(device_id.split("/")[1:2])
        if left and engine.phase in ("starting", "lost"):
            yield Delete(app=engine.args.app, why=f"its device {device_id} has left")
        elif world.leaves(engine) and (engine.overdue or _never_came(engine)):
            yield Delete(app=engine.args.app, why="its node is being drained: Serve can start it there no more")


def _never_came(engine: Engine) -> bool:
    """Longer than one takes to introduce itself to a conductor that has just begun."""
    return engine.phase == "starting" and engine.beat is None and engine.age_s >= ADOPTION_S


def _strangers(world: World) -> Iterable[Delete]:
    for app, silent_s in world.strangers.items():
        if silent_s >= STRANGER_S:
            yield Delete(app=app, why=f"nothing is known of it, and nothing was heard for {silent_s:.0f} s")


def _adopting(world: World) -> bool:
    """Are there engines that have not introduced themselves yet? They may be just those that seem to be missing."""
    return any(silent_s < ADOPTION_S for silent_s in world.strangers.values())


def _once(deletes: Iterable[Delete]) -> list[Delete]:
    return list({delete.app: delete for delete in deletes}.values())


def _orphans(world: World) -> Iterable[Delete]:
    assert world.desired is not None
    names = {model.name for model in world.desired.models}
    for engine in world.engines:
        if engine.model not in names and engine.phase not in ("deleting", "failed"):
            yield Delete(app=engine.args.app, why="its model is not desired any more")


def _left_behind(view: ModelView) -> Iterable[Delete]:
    """Engines on nodes that are being drained: as many others as are wanted are ready. What they run they finish."""
    others = sum(engine.phase == "ready" for engine in view.staying)
    if others < wanted(view):
        return
    for engine in view.alive:
        if engine.args.app in view.leaving:
            yield Delete(app=engine.args.app, why=f"its node is being drained, {others} ready elsewhere")


def _surplus(view: ModelView) -> Iterable[Delete]:
    """Old revisions that current engines replace, those beyond `max`, and those idle for `idle_after_s`."""
    count = wanted(view)
    if view.desired.engine is None:
        yield from _idle_beyond(view, view.staying, count)
        return
    current = tuple(engine for engine in view.staying if engine.revision == view.target)
    old = tuple(engine for engine in view.staying if engine.revision != view.target)
    current_ready = [engine for engine in current if engine.phase == "ready"]
    if current_ready:
        keep_old = max(0, count - len(current_ready))
        for engine in sorted(old, key=_most_useful_first)[keep_old:]:
            yield Delete(app=engine.args.app, why=f"replaced by revision {view.target}")
    else:  # nothing has replaced them yet: whatever the demand, they go only for idleness
        yield from _idle_beyond(view, old, count)
    yield from _idle_beyond(view, current, count)


def _idle_beyond(view: ModelView, engines: tuple[Engine, ...], count: int) -> Iterable[Delete]:
    """Those that load stay until they are ready: their work would be lost, and a failure shows itself.

    More than `max` may serve when it was lowered, or when engines that were replaced are back: they go at once.
    """
    surplus = len(engines) - count
    most = view.desired.max_engines
    beyond = sum(engine.phase == "ready" for engine in engines) - most
    idle_after_s, since_s = view.desired.idle_after_s, view.memory.surplus_since_s
    long_surplus = since_s is not None and view.now_s - since_s >= idle_after_s
    for engine in sorted(engines, key=_most_useful_first, reverse=True):
        if surplus <= 0:
            return
        idle = engine.idle_s >= idle_after_s or long_surplus
        if engine.phase == "ready" and beyond > 0:
            surplus, beyond = surplus - 1, beyond - 1
            yield Delete(app=engine.args.app, why=f"more serve than the {most} that the model may have")
        elif engine.phase in ("ready", "lost") and engine.running == 0 and idle:
            surplus -= 1
            yield Delete(app=engine.args.app, why=f"idle for {engine.idle_s:.0f} s, {count} wanted")


def _most_useful_first(engine: Engine) -> tuple[bool, int, float]:
    return (engine.phase != "ready", -engine.running, engine.idle_s)


def _urgency(view: ModelView) -> tuple[bool, int, str]:
    """Models without any ready engine first, then by waiting requests; the name makes it a total order."""
    return (bool(view.ready), -view.demand.queued, view.name)


def _slots(view: ModelView) -> int:
    spec = view.desired.engine or (view.alive[0].args.spec if view.alive else None)
    return spec.concurrency if spec else 1


def _recent_demand(view: ModelView) -> bool:
    last = view.memory.last_demand_s
    return last is not None and view.now_s - last < view.desired.idle_after_s


def _backing_off(view: ModelView) -> bool:
    return view.failed_target and view.now_s < view.memory.retry_at_s


def _status(world: World, view: ModelView, outcome: place.Outcome | None) -> ModelStatus:
    """One that waits for a pod starts there: what is on the disks of now does not count for it."""
    if outcome is not None and outcome.awaits_pod and view.desired.engine is not None:
        view = replace(view, downloads=world.downloads_on_new(view.desired.engine))
    return model_status(view, outcome or place.Outcome(explanation=()))
