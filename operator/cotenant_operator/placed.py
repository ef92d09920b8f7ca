"""How many engines a model has, where they are and what they get of a device, for its object's status. Pure."""

from typing import Any

from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.quantity import as_quantity
from cotenant_serving.contract import EngineStatus, ModelStatus

_GOING = frozenset({"draining", "deleting", "failed"})
MAX_PLACEMENTS = 64


def replicas(planned: ModelPlan, pool: PoolSeen | None) -> dict[str, Any]:
    """`ready` answer, in every RayCluster. `desired` are those that the model should have: what is made to take the
    place of others, in a pool that rolls or for a new revision, does not count twice, nor anything above `max`.
    """
    rows = pool.rows.get(planned.name, ()) if pool is not None else ()
    warm = pool.warm.get(planned.name, 0) if pool is not None else 0
    kept = max(planned.min_engines, warm) if planned.engine is not None else 0
    ready, desired = sum(row.ready_engines for row in rows), max(kept, *map(_desired, rows), 0)
    desired = min(desired, planned.max_engines)  # more are there while some take the place of others
    return {"ready": ready, "desired": desired, "summary": f"{ready}/{desired}"}


def _desired(row: ModelStatus) -> int:
    """In one RayCluster: as many as answer, or more that are on their way to the revision that is wanted."""
    alive = [engine for engine in row.engines if engine.state not in _GOING]
    return max(row.ready_engines, sum(engine.revision == row.target_revision for engine in alive))


def gpu(planned: ModelPlan, pool: PoolSeen | None) -> dict[str, Any] | None:
    """What an engine gets on the group that is tried first."""
    if planned.engine is None:
        return None
    first = planned.engine.candidates[0]
    workers = {worker.name: worker for worker in pool.pool.spec.workers} if pool is not None else {}
    profile = workers[first.group].mig_profile if first.group in workers else None
    return {
        "share": profile or as_quantity(first.share_bytes),
        "memory": as_quantity(first.share_bytes),
        "device": planned.engine.device,
        "groups": [candidate.group for candidate in planned.engine.candidates],
    }


def placements(seen: ModelStatus | None) -> list[dict[str, Any]]:
    """One for each engine that has a device, at most 64."""
    engines = seen.engines if seen is not None else ()
    return [_placement(engine) for engine in engines if engine.device_id][:MAX_PLACEMENTS]


def _placement(engine: EngineStatus) -> dict[str, Any]:
    placement = {
        "engine": engine.app,
        "state": engine.state,
        "revision": engine.revision,
        "device": engine.device_id,
        "group": _group(engine.device_id),
        "node": engine.node,
        "pod": engine.pod,
        "share": as_quantity(engine.share_bytes),
    }
    return {name: value for name, value in placement.items() if value}


def _group(device_id: str) -> str:
    """`<node ip>/<group>/<index>`"""
    parts = device_id.split("/")
    return parts[1] if len(parts) == 3 else ""
