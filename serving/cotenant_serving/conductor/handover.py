"""Giving way to another Ray cluster of the same pool: what ends here, and when. Pure.

Deleting an app drains its engine: it refuses new requests, which gateways then send elsewhere, and finishes the
others. So an engine may go at any time; the order below keeps the fewest requests from moving.
"""

from collections.abc import Iterable

from cotenant_serving.conductor.world import Delete, Device, World

IDLE_S = 5.0
"""An engine without a request for so long is given up while the cluster drains."""


def handed_over(world: World) -> Iterable[Delete]:
    """Nothing unless the desired state says `draining`."""
    if world.desired is None or not world.desired.draining:
        return
    for engine in world.engines:
        if engine.phase in ("ready", "lost") and engine.running == 0 and engine.idle_s >= IDLE_S:
            yield Delete(app=engine.args.app, why=f"idle for {engine.idle_s:.0f} s; another Ray cluster takes over")
    for group, keep in world.desired.keep_devices.items():
        held = [device for device in world.devices_of(group) if _stays(world, device)]
        for device in sorted(held, key=lambda one: _loss(world, one))[: max(0, len(held) - keep)]:
            for engine in world.engines_on(device):
                yield Delete(app=engine.args.app, why=f"{device.id} is given to the Ray cluster that takes over")


def _stays(world: World, device: Device) -> bool:
    """Does it hold an engine that does not end yet?"""
    return any(engine.phase not in ("deleting", "draining", "failed") for engine in world.engines_on(device))


def _loss(world: World, device: Device) -> tuple[int, int, str]:
    here = world.engines_on(device)
    return (sum(engine.running for engine in here), len(here), device.id)
