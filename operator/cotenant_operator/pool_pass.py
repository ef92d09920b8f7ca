"""One pass over one pool: the world as it is → everything that is to be done now. Pure.

Doing it twice does nothing the second time: what is as wanted already is not in the actions.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from cotenant_operator.actions import (
    Actions,
    Apply,
    Merge,
    Put,
    Remove,
    SetStatus,
    Tell,
    Write,
    changed_status,
    covers,
)
from cotenant_operator.cluster_names import ROLL_ANNOTATION, cache_objects, conductor_service, conductor_url
from cotenant_operator.ending_pods import ending_worker_writes, next_look_s
from cotenant_operator.event_texts import events_of
from cotenant_operator.instants import utc
from cotenant_operator.kinds import (
    CONFIG_MAPS,
    DAEMON_SETS,
    MODELS,
    NETWORK_POLICIES,
    POOLS,
    RAY_CLUSTERS,
    SERVICES,
    Key,
    Kind,
    Object,
)
from cotenant_operator.object_status import MODEL_CONDITIONS, model_status, pinned
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.planned import ModelPlan, PoolPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.pool_status import POOL_CONDITIONS, pool_status
from cotenant_operator.pool_world import (
    PoolWorld,
    agents_seen,
    clusters_seen,
    head_problem,
    head_state,
    kuberay,
    pods_seen,
    ready_workers,
)
from cotenant_operator.render.cache_parts import render_agent, render_cache_policy, render_peers, render_preload
from cotenant_operator.render.desired import render_desired
from cotenant_operator.render.kept_facts import render_facts
from cotenant_operator.render.network_policy import render_network_policy
from cotenant_operator.render.pool_template import digest
from cotenant_operator.render.raycluster import keep_scale, leaving, render_conductor_service, render_raycluster
from cotenant_operator.roll_world import ClusterSeen, Create, Delete, Note, Roll, Told
from cotenant_operator.spec import GPUPool
from cotenant_operator.status import ConditionType
from cotenant_operator.stuck_pods import next_stuck_s
from cotenant_operator.tenant_status import invalid_status
from cotenant_serving.contract import Desired, ModelStatus, PoolStatus

APPLIED_ANNOTATION = "cotenant.dev/applied"
"""On what is applied: a hash of all of it, so that a field that is not wanted any more is noticed."""

PlanRoll = Callable[[GPUPool, OperatorSettings, Sequence[ClusterSeen], Collection[str] | None, float], Roll]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolInput:
    """One pool by name. `pool` is None when there is no such GPUPool, or none that can be read."""

    name: str
    pool: GPUPool | None
    pool_object: Object | None
    pool_problem: str = ""
    """Why the GPUPool cannot be read."""
    missing_secret: str = ""
    """Why its worker pods do not get their hub token."""
    facts: bytes = b""
    """What is known of its models from hubs, packed; empty when nothing is."""
    models: Mapping[str, ModelPlan] = field(default_factory=dict)
    """`namespace/name` → plan, of the models that name this pool."""
    objects: Mapping[Key, Object] = field(default_factory=dict)
    """Their objects, with those that cannot be read."""
    problems: Mapping[Key, str] = field(default_factory=dict)
    """Why not."""
    plan: PoolPlan
    world: PoolWorld
    settings: OperatorSettings


@dataclass(frozen=True, slots=True)
class Settled:
    """What a model's status was found to be right for: with the same again, it still is."""

    live: Object
    planned: ModelPlan
    rows: Sequence[ModelStatus]
    pool: PoolSeen | None
    """Without what its conductors say of models."""


Memory = dict[Key, Settled]
"""Kept between passes to spare work; a pass without it decides the same."""


def decide(given: PoolInput, plan_roll: PlanRoll, memory: Memory | None = None) -> Actions:
    """Everything of this pool. `plan_roll` decides about its RayClusters."""
    memory = {} if memory is None else memory
    faults: list[Exception] = []
    if given.pool is None or given.pool_object is None:
        statuses = (*_unreadable_pool(given), *_models(given, None, memory, faults))
        return replace(
            Actions(statuses=statuses, routed=None if given.pool_problem else ()), events=_events(statuses)
        )
    pool, world = given.pool, given.world
    roll = plan_roll(pool, given.settings, clusters_seen(world), world.routed, world.now_s)
    seen = replace(_seen(pool, roll, world), missing_secret=given.missing_secret)
    uid, base = given.pool_object["metadata"]["uid"], desired_of(given.plan, pool)
    statuses = (*_pool(given, seen), *_models(given, seen, memory, faults))
    namespace = given.settings.namespace
    return Actions(
        events=_events(statuses),
        writes=(*_writes(pool, uid, roll, world, given.settings), *_cache_writes(given, pool, base, uid))
        if world.kuberay_served
        else (),
        puts=_puts(base, roll, world),
        statuses=statuses,
        follow={
            item["metadata"]["name"]: conductor_url(item["metadata"]["name"], namespace) for item in _alive(world)
        },
        routed=tuple(conductor_url(name, namespace) for name in roll.routed) if world.kuberay_served else None,
        again_s=_again_s(roll, world),
        faults=tuple(faults),
    )


def _writes(pool: GPUPool, uid: str, roll: Roll, world: PoolWorld, settings: OperatorSettings) -> tuple[Write, ...]:
    writes: list[Write] = []
    patches: dict[str, Object] = {}
    for step in roll.steps:
        live = world.cluster(step.name)
        if isinstance(step, Create):
            writes.append(Apply(RAY_CLUSTERS, _stamped(render_raycluster(pool, settings, step.name, uid=uid))))
        elif isinstance(step, Note) and live is not None:
            text = step.handover.to_json() if step.handover else None
            patches[step.name] = {"metadata": {"annotations": {ROLL_ANNOTATION: text}}}
        elif isinstance(step, Delete) and live is not None:
            writes.append(_removed(RAY_CLUSTERS, live))
    deleted = {step.name for step in roll.steps if isinstance(step, Delete)}
    for live in (item for item in _alive(world) if item["metadata"]["name"] not in deleted):
        name = live["metadata"]["name"]
        if name in roll.leaving and (wanted := leaving(live))["spec"] != live["spec"]:
            patches[name] = {**patches.get(name, {}), "spec": wanted["spec"]}
        if name in patches:
            writes.append(_merged(live, patches[name]))
        elif name == roll.target:
            writes += _up_to_date(render_raycluster(pool, settings, name, uid=uid), live)
        writes += _service(pool, settings, live, world)
        writes += _policy(pool, settings, live, world)
        writes += ending_worker_writes(world.pods.get(name, ()), _status(world, name), world.now_s)
    return tuple(writes)


def _cache_writes(given: PoolInput, pool: GPUPool, base: Desired, uid: str) -> list[Write]:
    """What stands beside pods for the pool's models: their weight caches, and what they are."""
    world, settings = given.world, given.settings
    name = cache_objects(pool.metadata.name)
    wanted: list[tuple[Kind, Object | None, Object | None]] = [
        (CONFIG_MAPS, world.preload, render_preload(pool, settings, base, uid=uid)),
        (CONFIG_MAPS, world.facts, render_facts(pool, settings, given.facts, uid=uid) if given.facts else None),
        (SERVICES, world.services.get(name), render_peers(pool, settings, uid=uid)),
        (DAEMON_SETS, world.agent, render_agent(pool, settings, uid=uid) if pool.spec.cache.path else None),
        (
            NETWORK_POLICIES,
            world.policies.get(name),
            render_cache_policy(pool, settings, uid=uid) if settings.network_policies else None,
        ),
    ]
    writes: list[Write] = []
    for kind, have, rendered in wanted:
        if rendered is None:
            writes += [_removed(kind, have)] if have is not None else []
        elif have is None or not covers(have, _stamped(rendered)):
            writes.append(Apply(kind, _stamped(rendered)))
    return writes


def _again_s(roll: Roll, world: PoolWorld) -> float | None:
    """Seconds until something may be due that no event announces."""
    looks = [next_look_s(pods, _status(world, name), world.now_s) for name, pods in world.pods.items()]
    looks += [next_stuck_s(pods, world.now_s) for pods in (*world.pods.values(), world.agent_pods)]
    return min((wait_s for wait_s in (roll.look_again_s, *looks) if wait_s is not None), default=None)


def _up_to_date(rendered: Object, live: Object) -> list[Write]:
    """The target's spec, with the numbers of pods that Ray's autoscaler has set."""
    wanted = keep_scale(_stamped(rendered), live)
    if covers(live, wanted):
        return []
    metadata = {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
    return [Apply(RAY_CLUSTERS, {**wanted, "metadata": metadata})]


def _service(pool: GPUPool, settings: OperatorSettings, live: Object, world: PoolWorld) -> list[Write]:
    name = live["metadata"]["name"]
    wanted = _stamped(render_conductor_service(pool, settings, name, uid=live["metadata"]["uid"]))
    have = world.services.get(conductor_service(name))
    return [] if have is not None and covers(have, wanted) else [Apply(SERVICES, wanted)]


def _policy(pool: GPUPool, settings: OperatorSettings, live: Object, world: PoolWorld) -> list[Write]:
    name = live["metadata"]["name"]
    have = world.policies.get(name)
    if not settings.network_policies:
        return [_removed(NETWORK_POLICIES, have)] if have is not None else []
    wanted = _stamped(render_network_policy(pool.metadata.name, settings, name, uid=live["metadata"]["uid"]))
    return [] if have is not None and covers(have, wanted) else [Apply(NETWORK_POLICIES, wanted)]


def _removed(kind: Kind, live: Object) -> Remove:
    metadata = live["metadata"]
    return Remove(kind, metadata["namespace"], metadata["name"], metadata["uid"])


def _stamped(item: Object) -> Object:
    metadata = item["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest(item)}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def _merged(live: Object, patch: Object) -> Merge:
    """Conditional on what was looked at."""
    metadata = live["metadata"]
    version = {"resourceVersion": metadata["resourceVersion"]}
    patch = {**patch, "metadata": {**patch.get("metadata", {}), **version}}
    return Merge(RAY_CLUSTERS, metadata["namespace"], metadata["name"], patch)


def _puts(base: Desired, roll: Roll, world: PoolWorld) -> tuple[Put, ...]:
    """For each conductor that answers and has been told something else."""
    puts = []
    for name, told in roll.told.items():
        conductor = world.conductors.get(name)
        if conductor is None or conductor.status is None:
            continue
        wanted = _told(base, told)
        have = conductor.desired
        if have is None or msgspec.structs.replace(have, generation=0) != wanted:
            known = max(conductor.status.generation, have.generation if have else 0)
            puts.append(Put(name, msgspec.structs.replace(wanted, generation=known + 1)))
    return tuple(puts)


def desired_of(plan: PoolPlan, pool: GPUPool) -> Desired:
    """Generation 0. Groups may grow: Ray's autoscaler brings pods up to `max`."""
    scale = {worker.name: worker for worker in pool.spec.workers}
    base = render_desired(plan, generation=0)
    groups = tuple(
        msgspec.structs.replace(group, min_devices=scale[group.name].min, max_devices=scale[group.name].max)
        for group in base.groups
    )
    return msgspec.structs.replace(base, groups=groups, caches_per_pod=pool.spec.cache.per_pod)


def _told(base: Desired, told: Told) -> Desired:
    return msgspec.structs.replace(
        base,
        models=() if told.without_models else base.models,
        warm=dict(told.warm),
        draining=told.draining,
        keep_devices=dict(told.keep_devices),
    )


def _seen(pool: GPUPool, roll: Roll, world: PoolWorld) -> PoolSeen:
    names = [item["metadata"]["name"] for item in _alive(world)]
    serving = [name for name in roll.routed if name in names]
    active = next((name for name in serving if name != roll.target), serving[0] if serving else "")
    order = sorted(names, key=lambda name: name != active)
    statuses = tuple(said for name in order if (said := _status(world, name)) is not None)
    live = world.cluster(active) if active else None
    pods = tuple(pod for name in names for pod in world.pods.get(name, ()))
    problem = head_problem(live, world.pods.get(active, ()), world.now_s) if live is not None else ""
    conductor = world.conductors.get(active)
    head = head_state(live, world.pods.get(active, ()))
    return PoolSeen(
        pool=pool,
        kuberay=kuberay(world),
        active=active,
        target=roll.target,
        head=head,
        statuses=statuses,
        problem=world.refused or problem or (conductor.problem if conductor and head == "ready" else ""),
        pods=pods_seen(pods, world.now_s),
        workers=ready_workers(pods),
        agents=agents_seen(world.agent, world.agent_pods, world.now_s),
        phase=roll.phase,
        rolling=roll.message,
        warm=roll.told[roll.target].warm if roll.target in roll.told else {},
        node_resources=world.node_resources,
    )


def _status(world: PoolWorld, name: str) -> PoolStatus | None:
    conductor = world.conductors.get(name)
    return conductor.status if conductor else None


def _alive(world: PoolWorld) -> list[Object]:
    return [item for item in world.clusters if not item["metadata"].get("deletionTimestamp")]


def _pool(given: PoolInput, seen: PoolSeen) -> tuple[SetStatus, ...]:
    live = given.pool_object
    assert live is not None
    status = pool_status(
        given.plan,
        seen,
        generation=live["metadata"]["generation"],
        previous=live.get("status"),
        now=utc(given.world.now_s),
    )
    return changed_status(POOLS, live, status)


def _models(
    given: PoolInput, seen: PoolSeen | None, memory: Memory, faults: list[Exception]
) -> tuple[SetStatus, ...]:
    now, url = utc(given.world.now_s), given.settings.url
    around = _without_rows(seen)
    rows = seen.rows if seen is not None else {}
    changed: list[SetStatus] = []
    for key in memory.keys() - given.objects.keys():
        del memory[key]
    for key, live in given.objects.items():
        if live["metadata"].get("deletionTimestamp"):
            continue
        if key in given.problems:
            changed += _unreadable(MODELS, MODEL_CONDITIONS, live, given.problems[key], now)
            continue
        name = "/".join(key)
        planned = given.models.get(name)
        if planned is None:
            continue
        before, own = memory.get(key), rows.get(name, ())
        if before is not None and _same(before, live, planned, own, around):
            around = before.pool  # the next comparison is one of identity
            continue
        previous = live.get("status")
        generation = live["metadata"]["generation"]
        try:
            status = model_status(planned, seen, generation=generation, previous=previous, now=now, url=url)
        except Exception as error:
            error.add_note(f"status of {name}")
            faults.append(error)
            continue
        if due := changed_status(MODELS, live, status):
            changed += due
        else:
            memory[key] = Settled(live, planned, own, around)
    return tuple(changed)


def _same(
    before: Settled, live: Object, planned: ModelPlan, rows: Sequence[ModelStatus], around: PoolSeen | None
) -> bool:
    return (
        before.live is live
        and (before.pool is around or before.pool == around)
        and before.rows == rows
        and before.planned == planned
    )


def _without_rows(seen: PoolSeen | None) -> PoolSeen | None:
    if seen is None:
        return None
    return replace(seen, statuses=tuple(msgspec.structs.replace(said, models=()) for said in seen.statuses))


def _unreadable_pool(given: PoolInput) -> tuple[SetStatus, ...]:
    if given.pool_object is None or not given.pool_problem:
        return ()
    return _unreadable(POOLS, POOL_CONDITIONS, given.pool_object, given.pool_problem, utc(given.world.now_s))


def _unreadable(
    kind: Kind, types: Sequence[ConditionType], live: Object, problem: str, now: str
) -> tuple[SetStatus, ...]:
    previous, generation = live.get("status"), live["metadata"]["generation"]
    status = invalid_status(types, [problem], generation=generation, previous=previous, now=now)
    if (source := pinned(previous, generation)) is not None:
        status["source"] = source
    return changed_status(kind, live, status)


def _events(statuses: Sequence[SetStatus]) -> tuple[Tell, ...]:
    return tuple(event for item in statuses for event in events_of(item.live, item.status))
