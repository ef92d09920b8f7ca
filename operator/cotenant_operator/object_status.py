"""What was planned and what was seen → the `status` of a ModelDeployment. Pure.

Everything in it changes when the model's state does and not by itself: a pass over a thousand models that are as they
were must find a thousand statuses that are equal to what stands in the API server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cotenant_operator.cached_files import cached_condition, cached_counts
from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.dated import Status, dated
from cotenant_operator.hindrance import Hindrance, of_model, of_pool
from cotenant_operator.neighbours import steady, without_neighbours
from cotenant_operator.placed import gpu, placements, replicas
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.quantity import show_bytes
from cotenant_operator.status import Condition, ConditionStatus, ConditionType, conditions
from cotenant_serving.contract import Candidate, ModelStatus, Reason

MODEL_CONDITIONS: tuple[ConditionType, ...] = ("Accepted", "Cached", "Placed", "Loaded", "Ready")
LEFT_OUT = (
    "the gateways' configuration has no room for all models of all tenants, and this one is among the youngest: "
    "nobody can call it; delete models, or let fewer tenants see each of them (its spec.tenants; spec.namespaces and "
    "spec.accepts of Tenants)"
)
_MAX_LINES = 16
_MOVING = frozenset({Reason.LOADING, Reason.WAKING, Reason.NO_ROOM, Reason.POD_PENDING, Reason.NO_NODE})
"""Their messages tell how far it is."""


def model_status(
    planned: ModelPlan,
    pool: PoolSeen | None,
    *,
    generation: int,
    previous: Mapping[str, Any] | None,
    now: str,
    url: str,
) -> Status:
    """`pool` is None when there is no such GPUPool; `url` is the gateway's base URL, without `/v1`."""
    seen = pool.models.get(planned.name) if pool is not None else None
    found = [_readable(item, planned, pool) for item in _conditions(planned, seen, pool, previous)]
    target = planned.engine.revision if planned.engine else ""
    status: Status = {
        "observedGeneration": generation,
        "conditions": dated(found, previous, generation=generation, now=now),
        "modelId": planned.name,
        "url": f"{url}/v1",
        "replicas": replicas(planned, pool),
        "selector": f"cotenant.dev/pool={planned.pool},ray.io/node-type=worker",
        "state": seen.state if seen is not None else None,
        "task": planned.task,
        "source": planned.engine.source if planned.engine else pinned(previous, generation),
        "revision": seen.revision if seen is not None else None,
        "targetRevision": target,
        "cached": cached_counts(found[MODEL_CONDITIONS.index("Cached")], planned, pool),
        "gpu": gpu(planned, pool),
        "placements": placements(seen),
        "explanation": _explanation(seen, planned, pool),
    }
    known = {name: value for name, value in status.items() if value not in (None, "", [])}
    return {**known, **_last_known(found, previous)} if seen is None else known


def pinned(previous: Mapping[str, Any] | None, generation: int) -> str | None:
    """The commit that this very spec was resolved to, whatever refuses it now: its branch may have moved since."""
    said = previous or {}
    return said.get("source") if said.get("observedGeneration") == generation else None


def _last_known(found: Sequence[Condition], previous: Mapping[str, Any] | None) -> Status:
    """While nobody can say how it is, what was said last stands beside the condition that says so."""
    if found[-1].status != "Unknown":
        return {}
    kept = ("state", "revision", "replicas", "placements")
    return {name: previous[name] for name in kept if previous and name in previous}


def _conditions(
    planned: ModelPlan, seen: ModelStatus | None, pool: PoolSeen | None, previous: Mapping[str, Any] | None
) -> list[Condition]:
    _, cached, placed, loaded, ready = conditions(planned, seen)
    cached = cached_condition(cached, planned, pool, previous)
    if seen is not None and seen.ready_engines:
        ready = replace(ready, message=_answers(planned, seen))
    hindrance = _hindrance(planned, seen, pool)
    if hindrance is not None:
        placed, loaded, ready = (_hindered(item, hindrance) for item in (placed, loaded, ready))
    if planned.left_out:
        ready = Condition("Ready", "False", ClusterReason.GATEWAYS_FULL, LEFT_OUT)
    return [_accepted(planned, seen), cached, placed, loaded, ready]


def _hindrance(planned: ModelPlan, seen: ModelStatus | None, pool: PoolSeen | None) -> Hindrance | None:
    if pool is None or planned.engine is None:
        return None
    found = of_pool(pool) or of_model(planned, seen, pool)
    if found is None and seen is None:
        return Hindrance(
            "Unknown", ClusterReason.SENT, "the conductor has been told and has not said anything of it yet"
        )
    return found


def _hindered(item: Condition, hindrance: Hindrance) -> Condition:
    """What holds already is not touched."""
    return item if item.status == "True" else hindrance.as_condition(item.type)


def _accepted(planned: ModelPlan, seen: ModelStatus | None) -> Condition:
    refusal = planned.refusal
    if refusal is not None:
        status: ConditionStatus = "Unknown" if refusal.reason is Reason.FACTS_PENDING else "False"
        serving = "; the earlier revision serves on" if seen is not None and seen.ready_engines else ""
        return Condition("Accepted", status, refusal.reason, refusal.message + serving)
    if planned.name_taken_for:
        return Condition("Accepted", "True", ClusterReason.NAME_TAKEN, _name_taken(planned))
    return Condition("Accepted", "True", ClusterReason.FITS, _fits(planned))


def _name_taken(planned: ModelPlan) -> str:
    bare = planned.name.partition("/")[2]
    tenants = ", ".join(planned.name_taken_for)
    return (
        f"{_fits(planned)}; for {'tenants' if len(planned.name_taken_for) > 1 else 'tenant'} {tenants} the bare name "
        f"{bare!r} means an older model of another namespace: call this one {planned.name!r}, or give it another name"
    )


def _fits(planned: ModelPlan) -> str:
    if planned.engine is None or planned.estimate is None:
        return ""
    parts = planned.estimate.parts()
    return (
        f"gets {_shares(planned.engine.candidates)}; needs {show_bytes(planned.estimate.floor_bytes)}"
        f"{': ' if parts else ''}{parts}"
    )


def _shares(candidates: Sequence[Candidate]) -> str:
    """What an engine gets where: a fraction is another number of bytes in groups of other devices."""
    groups: dict[int, list[str]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.share_bytes, []).append(candidate.group)
    return ", ".join(
        f"{show_bytes(share)} on group {first}{' or ' if others else ''}{', '.join(others)}"
        for share, (first, *others) in groups.items()
    )


def _answers(planned: ModelPlan, seen: ModelStatus) -> str:
    count = seen.ready_engines
    said = f"{count} engine{' answers' if count == 1 else 's answer'}"
    older = planned.refusal is not None or (seen.target_revision and seen.revision != seen.target_revision)
    return f"{said}; {seen.message}" if older and seen.message else said


def _readable(item: Condition, planned: ModelPlan, pool: PoolSeen | None) -> Condition:
    message = item.message
    if not message or pool is None:
        return item
    if item.reason in _MOVING:
        message = steady(message)
    message = without_neighbours(message, planned.name.partition("/")[0], pool.models)
    return item if message == item.message else replace(item, message=message)


def _explanation(seen: ModelStatus | None, planned: ModelPlan, pool: PoolSeen | None) -> list[str]:
    if seen is None or pool is None:
        return []
    namespace = planned.name.partition("/")[0]
    return [steady(without_neighbours(line, namespace, pool.models)) for line in seen.explanation[:_MAX_LINES]]
