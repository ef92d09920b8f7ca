"""What a pass sees, for tests of the status of objects: a pool whose head answers, an engine that is ready, a pod."""

from typing import Any

from cotenant_operator.pool_seen import PodSeen, PoolSeen
from cotenant_serving.contract import DeviceStatus, EngineStatus, ModelStatus, PoolStatus, Reason
from tests.builders.operator import pool, worker

GIB = 2**30
MODEL = "search/chat"
CLUSTER = "default-1a2b3c4d"
REVISION = "5e0f1a2b"
NODE = "10.77.0.11"
SHARED = worker("shared", device="cuda", memory="80Gi", resource="nvidia.com/gpu", max=8)
MIG = worker("mig-1g10gb", device="cuda", memory="9856Mi", resource="nvidia.com/mig-1g.10gb", sharing="mig", max=7)
GPUS = {"nvidia.com/gpu": 4}


def engine(model: str = MODEL, **fields: Any) -> EngineStatus:
    given = {
        "app": f"{model.replace('/', '.')}-{REVISION}-0",
        "model": model,
        "revision": REVISION,
        "state": "ready",
        "device_id": f"{NODE}/shared/0",
        "share_bytes": 4 * GIB,
        "slots": 8,
        "node": "node1",
        "pod": f"{CLUSTER}-shared-worker-x7k2p",
    }
    return EngineStatus(**{**given, **fields})


def seen(model: str = MODEL, **fields: Any) -> ModelStatus:
    """Of the conductor; idle unless said otherwise."""
    given = {
        "model": model,
        "state": "cold",
        "reason": Reason.IDLE,
        "message": "no engine; the first request wakes one",
        "target_revision": REVISION,
    }
    return ModelStatus(**{**given, **fields})


def ready(model: str = MODEL, *, engines: tuple[EngineStatus, ...] = (), **fields: Any) -> ModelStatus:
    running = engines or (engine(model),)
    count = sum(item.state == "ready" for item in running)
    return seen(
        model,
        **{
            "state": "ready",
            "reason": Reason.READY,
            "message": f"{count} engine(s) serve",
            "revision": REVISION,
            "ready_engines": count,
            "engines": running,
            **fields,
        },
    )


def said(*models: ModelStatus, **fields: Any) -> PoolStatus:
    device = DeviceStatus(
        device_id=f"{NODE}/shared/0",
        group="shared",
        device="cuda",
        memory_bytes=80 * GIB,
        reserved_bytes=4 * GIB,
        used_bytes=3 * GIB,
        engines=1,
        node="node1",
        pod=f"{CLUSTER}-shared-worker-x7k2p",
    )
    return PoolStatus(
        **{"pool": "default", "epoch": "e", "generation": 7, "models": models, "devices": (device,), **fields}
    )


def pool_seen(*models: ModelStatus, groups: tuple[Any, ...] = (SHARED, MIG), **fields: Any) -> PoolSeen:
    """A pool with one RayCluster whose conductor has said that much of the models."""
    given: dict[str, Any] = {
        "pool": pool(*groups),
        "active": CLUSTER,
        "target": CLUSTER,
        "head": "ready",
        "statuses": (said(*models),),
        "workers": {"shared": 1},
        "node_resources": GPUS,
    }
    return PoolSeen(**{**given, **fields})


def silent(**fields: Any) -> PoolSeen:
    """The same, while no conductor answers."""
    return pool_seen(**{"statuses": (), **fields})


def pod(reason: str, message: str = "", *, group: str = "shared") -> PodSeen:
    name = f"{CLUSTER}-{f'{group}-worker' if group else 'head'}-x7k2p"
    return PodSeen(name=name, group=group, reason=reason, message=message)
