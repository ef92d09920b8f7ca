"""What was planned and what was seen → the `status` of a GPUPool. Pure."""

from collections.abc import Mapping
from typing import Any

from cotenant_operator.cache_health import troubles
from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.dated import Status, dated
from cotenant_operator.hindrance import Hindrance, of_pods, of_pool, of_secret
from cotenant_operator.planned import PoolPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.quantity import as_quantity
from cotenant_operator.spec import Worker
from cotenant_operator.status import Condition, ConditionType
from cotenant_serving.contract import DeviceStatus, Reason

POOL_CONDITIONS: tuple[ConditionType, ...] = ("Accepted", "KubeRayReady", "ConductorReady", "Rolling", "Ready")
MAX_DEVICES = 256


def pool_status(
    plan: PoolPlan, pool: PoolSeen, *, generation: int, previous: Mapping[str, Any] | None, now: str
) -> Status:
    """`plan` has the models of the pool, refused ones too."""
    hindrance = of_pool(pool)
    found = [
        _accepted(pool),
        _kuberay(hindrance),
        _conductor(pool, hindrance),
        _rolling(pool),
        _ready(plan, pool, hindrance),
    ]
    devices = [device for status in pool.statuses for device in status.devices]
    ready = sum(model.ready_engines > 0 for model in pool.models.values())
    status: Status = {
        "observedGeneration": generation,
        "conditions": dated(found, previous, generation=generation, now=now),
        "rayClusters": {name: value for name, value in (("active", pool.active), ("target", pool.target)) if value},
        "models": {"ready": ready, "all": len(plan.models), "summary": f"{ready}/{len(plan.models)}"},
        "workers": [_worker(worker, pool, devices) for worker in pool.pool.spec.workers],
        "pods": _pods(pool),
        "devices": [_device(device) for device in sorted(devices, key=lambda item: item.device_id)][:MAX_DEVICES],
    }
    return {name: value for name, value in status.items() if value not in (None, "", [])}


def _accepted(pool: PoolSeen) -> Condition:
    count = len(pool.pool.spec.workers)
    return Condition("Accepted", "True", ClusterReason.VALID, f"{count} worker group{'' if count == 1 else 's'}")


def _kuberay(hindrance: Hindrance | None) -> Condition:
    if hindrance is not None and hindrance.reason in (ClusterReason.KUBERAY_MISSING, ClusterReason.KUBERAY_SILENT):
        return hindrance.as_condition("KubeRayReady")
    return Condition("KubeRayReady", "True", ClusterReason.KUBERAY_WORKS)


def _conductor(pool: PoolSeen, hindrance: Hindrance | None) -> Condition:
    if hindrance is not None:
        return hindrance.as_condition("ConductorReady")
    return Condition("ConductorReady", "True", ClusterReason.ANSWERS, f"that of RayCluster {pool.active} answers")


def _rolling(pool: PoolSeen) -> Condition:
    rolls = pool.phase != "Settled"
    return Condition("Rolling", "True" if rolls else "False", ClusterReason(pool.phase), pool.rolling)


def _ready(plan: PoolPlan, pool: PoolSeen, hindrance: Hindrance | None) -> Condition:
    """A pool is ready when its conductor answers: without pods and models it still wakes the first one, if it can."""
    if hindrance is not None:
        return hindrance.as_condition("Ready")
    secret = of_secret(pool) if pool.missing_secret else None
    if secret is not None and not any(pool.workers.values()):
        return secret.as_condition("Ready")
    counts = f"{len(plan.accepted)} of {len(plan.models)} models are accepted"
    waiting = secret or of_pods(pod for pod in pool.pods if pod.group)
    parts = [counts, *([waiting.message] if waiting else []), *troubles(pool)]
    return Condition("Ready", "True", Reason.READY, "; ".join(parts))


def _worker(worker: Worker, pool: PoolSeen, devices: list[DeviceStatus]) -> dict[str, Any]:
    mine = [device for device in devices if device.group == worker.name]
    resource, have = worker.device_resource, pool.node_resources
    return {
        "name": worker.name,
        "device": worker.device,
        **({"resource": resource} if resource else {}),
        **({"inCluster": have.get(resource, 0)} if resource and have is not None else {}),
        "min": worker.min,
        "max": worker.max,
        "pods": pool.workers.get(worker.name, 0),
        "devices": len(mine),
        "memory": as_quantity(worker.memory),
        "reserved": as_quantity(sum(device.reserved_bytes for device in mine)),
    }


def _pods(pool: PoolSeen) -> str:
    """Ready worker pods, and how many there may be: `3/22`."""
    return f"{sum(pool.workers.values())}/{sum(worker.max for worker in pool.pool.spec.workers)}"


def _device(device: DeviceStatus) -> dict[str, Any]:
    found = {
        "id": device.device_id,
        "group": device.group,
        "memory": as_quantity(device.memory_bytes),
        "reserved": as_quantity(device.reserved_bytes),
        "engines": device.engines,
        "node": device.node,
        "pod": device.pod,
    }
    return {name: value for name, value in found.items() if value != ""}
