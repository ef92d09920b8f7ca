"""What of the gateways' configuration has room in its Secret, and what is left out when not all of it has. Pure.

A configuration that cannot be written would freeze: keys that were revoked would go on working. So what is written
always has room. Models go first, the youngest of them, so that nobody's key stops for want of room; only when tenants
and keys alone are too much, the youngest tenants go too, and with them their keys: closed, never open.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec

from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant
from cotenant_serving.packed_config import packed

STEPS = 64
"""What is left out is a whole number of so many parts: seven attempts at most, while revocations wait for them."""
_WIDEST = 2**63 - 1
_SLACK_BYTES = 256
"""For a generation of other digits, which may be packed a little better or worse."""


@dataclass(frozen=True, slots=True)
class Room:
    packed_bytes: int = 1_000_000
    """The API server takes 1 MiB (1,048,576) in all values of a Secret."""
    plain_bytes: int = 16 << 20
    """As JSON, which each worker of each gateway holds and reads anew at each change."""


ROOM = Room()


@dataclass(frozen=True, slots=True)
class Fitted:
    config: GatewayConfig
    packed_bytes: int
    models: frozenset[str] = frozenset()
    """Left out, as `namespace/name`: for gateways there are no such models."""
    tenants: frozenset[str] = frozenset()
    """Left out: their keys do not work."""


def fitted(config: GatewayConfig, tenants_created: Mapping[str, int], room: Room) -> Fitted:
    """`tenants_created`: Unix seconds; models have theirs. What is older stays, of one age the first by name."""
    models = [model.name for model in sorted(config.models, key=lambda model: (model.created, model.name))]
    tenants = sorted(
        (tenant.name for tenant in config.tenants), key=lambda name: (tenants_created.get(name, 0), name)
    )
    if (size := _size(config, room)) is not None:
        return Fitted(config, size)
    if (kept := _most(len(models), lambda count: _size(_with_models(config, models[:count]), room))) is not None:
        count, size = kept
        return Fitted(_with_models(config, models[:count]), size, frozenset(models[count:]))
    bare = _with_models(config, ())
    if (kept := _most(len(tenants), lambda count: _size(_with_tenants(bare, tenants[:count]), room))) is not None:
        count, size = kept
        fitting = _with_tenants(bare, tenants[:count])
        return Fitted(fitting, size, frozenset(models), frozenset(tenants[count:]))
    # So many conductors that nothing else has room: without tenants nobody is sent to any.
    nobody = msgspec.structs.replace(_with_tenants(bare, ()), conductors=())
    return Fitted(nobody, len(packed(msgspec.json.encode(nobody))), frozenset(models), frozenset(tenants))


def _size(config: GatewayConfig, room: Room) -> int | None:
    """Bytes when packed; None when it has no room."""
    raw = msgspec.json.encode(msgspec.structs.replace(config, generation=_WIDEST))
    if len(raw) > room.plain_bytes:
        return None
    size = len(packed(raw))
    return size if size + _SLACK_BYTES <= room.packed_bytes else None


def _most(count: int, size: Callable[[int], int | None]) -> tuple[int, int] | None:
    """The most of `count` that have room, by parts, and their size; None when not even 0 have."""
    nothing = size(0)
    if nothing is None:
        return None
    part = max(1, -(-count // STEPS))
    found, low, high = (0, nothing), 0, -(-count // part)
    while high - low > 1:
        middle = (low + high) // 2
        bytes_ = size(middle * part)
        if bytes_ is None:
            high = middle
        else:
            low, found = middle, (middle * part, bytes_)
    return found


def _with_models(config: GatewayConfig, names: Collection[str]) -> GatewayConfig:
    kept = frozenset(names)
    return msgspec.structs.replace(
        config,
        models=tuple(model for model in config.models if model.name in kept),
        tenants=tuple(_seeing(tenant, kept) for tenant in config.tenants),
    )


def _seeing(tenant: GatewayTenant, kept: Collection[str]) -> GatewayTenant:
    return msgspec.structs.replace(
        tenant,
        models=tuple(name for name in tenant.models if name in kept),
        claims=tuple(name for name in tenant.claims if name in kept),
    )


def _with_tenants(config: GatewayConfig, names: Collection[str]) -> GatewayConfig:
    kept = frozenset(names)
    return msgspec.structs.replace(config, tenants=tuple(tenant for tenant in config.tenants if tenant.name in kept))
