"""How many tenants and models have room in the gateways' configuration: `python -m benchmarks.gateway_room`.

Names, keys and times are random, as they are the worst to pack; which models a tenant sees is random too.
"""

import hashlib
import random
from dataclasses import dataclass

from cotenant_operator.gateway_room import Room, fitted
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant, Limits

KEYS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    said: str
    tenants: int
    """For each thousand models."""
    seen: int
    """Models that a tenant sees."""


SHAPES = (
    Shape("1 tenant for 10 models, which sees 10", 100, 10),
    Shape("1 tenant for each model, which sees 10", 1000, 10),
    Shape("1 tenant for 10 models, which sees 100", 100, 100),
    Shape("1 tenant for 100 models, which sees 1,000", 10, 1000),
    Shape("10 tenants for each model, which see 1", 10_000, 1),
)


def main() -> int:
    print("| Shape, with 2 keys a tenant | Tenants | Models |\n| --- | --- | --- |")
    for shape in SHAPES:
        low, high = 0, 1000
        while high - low > 1:  # hundreds of models
            middle = (low + high) // 2
            low, high = (middle, high) if _has_room(shape, middle * 100) else (low, middle)
        print(f"| {shape.said} | {shape.tenants * low // 10:,} | {low * 100:,} |", flush=True)
    return 0


def _has_room(shape: Shape, models: int) -> bool:
    found = fitted(_config(shape, models), {}, Room())
    return not found.models and not found.tenants


def _config(shape: Shape, models: int) -> GatewayConfig:
    chance = random.Random(7)
    names = sorted(f"team-{number % 97:02}/{chance.getrandbits(48):012x}-instruct" for number in range(models))
    tenants = shape.tenants * models // 1000
    return GatewayConfig(
        generation=1_795_730_000_000,
        conductors=tuple(f"http://pool-{number}-conductor.cotenant-system.svc:8700" for number in range(10)),
        tenants=tuple(
            GatewayTenant(
                name=f"tenant-{number:05}",
                key_sha256=tuple(hashlib.sha256(f"{number} {key}".encode()).hexdigest() for key in range(KEYS)),
                limits=Limits(requests_per_minute=600, tokens_per_minute=chance.randrange(10**6)),
                models=tuple(sorted(chance.sample(names, min(shape.seen, models)))),
            )
            for number in range(tenants)
        ),
        models=tuple(GatewayModel(name=name, created=1_795_730_000 + chance.randrange(10**7)) for name in names),
    )


if __name__ == "__main__":
    raise SystemExit(main())
