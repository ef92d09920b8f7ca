"""The conductor's whole view as `PoolStatus`: what was decided, and what was seen. Pure."""

from collections.abc import Callable

from cotenant_serving.conductor.cached import node_weights
from cotenant_serving.conductor.world import Decision, Device, Engine, World
from cotenant_serving.contract import DeviceStatus, PoolStatus


def pool_status(
    world: World,
    decision: Decision,
    *,
    epoch: str,
    reconciled: bool,
    pods_with_engines: tuple[str, ...] | None,
    holder: Callable[[str], str],
) -> PoolStatus:
    """`holder`: device id → the app that holds its start lease, or nothing."""
    desired = world.desired
    return PoolStatus(
        pool=desired.pool if desired else "",
        epoch=epoch,
        generation=desired.generation if desired else 0,
        models=decision.models,
        devices=tuple(_device(device, world.engines_on(device), holder(device.id)) for device in world.devices),
        groups=decision.group_statuses,
        draining=bool(desired and desired.draining),
        engines=len(world.engines) + len(world.strangers),
        busy_engines=sum(engine.running > 0 for engine in world.engines),
        in_flight=sum(engine.running for engine in world.engines),
        rates={rung: round(rate) for rung, rate in world.loads.bytes_per_s.items()},
        weights=node_weights((*world.caches.values(), *world.unusable_caches.values()), _sources(world)),
        reconciled=reconciled,
        pods_with_engines=pods_with_engines,
    )


def _sources(world: World) -> set[str]:
    models = world.desired.models if world.desired else ()
    return {model.engine.source for model in models if model.engine is not None}


def _device(device: Device, here: tuple[Engine, ...], lease: str) -> DeviceStatus:
    beats = [engine.beat for engine in here if engine.beat]
    return DeviceStatus(
        device_id=device.id,
        group=device.group,
        device=device.kind,
        memory_bytes=device.memory_bytes,
        reserved_bytes=sum(engine.args.share_bytes for engine in here),
        used_bytes=sum(beat.used_bytes for beat in beats),
        lease=lease,
        engines=len(here),
        running=sum(beat.running for beat in beats),
        node=next((beat.node for beat in beats if beat.node), ""),
        pod=device.host,
    )
