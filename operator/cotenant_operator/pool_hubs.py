"""From which hub the models of a pool are read, and as whom: what one pool is shown is no other pool's. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cotenant_operator.spec import GPUPool, ModelDeployment


@dataclass(frozen=True, slots=True)
class Hub:
    """Pools whose hubs are equal see the same models. The token itself is no part of it."""

    endpoint: str = ""
    secret: str = ""
    """`name/key` of the Secret with the token; empty where the pool names none."""


NO_HUB = Hub()
"""Of folders, which are the same for all."""

Sought = tuple[str, Hub]
"""A `spec.model`, and who is asked what it is."""


def hub_of(pool: GPUPool) -> Hub:
    hub = pool.spec.cache.hub
    return Hub(hub.endpoint, f"{hub.secret_ref.name}/{hub.secret_ref.key}" if hub.secret_ref else "")


def sought(source: str, pool: GPUPool) -> Sought:
    return source, hub_of(pool) if source.startswith("hf://") else NO_HUB


def sought_by(
    models: Iterable[ModelDeployment], pools: Mapping[str, GPUPool]
) -> dict[Sought, tuple[GPUPool, list[ModelDeployment]]]:
    """What is to be read, for which models, and a pool of theirs, whose hub and token do it.

    Of a model that has no pool, or that its pool does not take, nothing is read: no token is there for it to use.
    """
    found: dict[Sought, tuple[GPUPool, list[ModelDeployment]]] = {}
    for model in models:
        pool, source = pools.get(model.spec.pool), model.spec.model
        if pool is not None and source is not None and pool.spec.admits(model.metadata.namespace):
            found.setdefault(sought(source, pool), (pool, []))[1].append(model)
    return found
