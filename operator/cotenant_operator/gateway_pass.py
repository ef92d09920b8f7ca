"""One pass over what gateways must know: plan and routes → their configuration, and the status of tenants. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from cotenant_operator.actions import SetStatus, changed_status
from cotenant_operator.instants import utc
from cotenant_operator.kinds import MODELS, TENANTS, Key, Object
from cotenant_operator.kube_objects import instant
from cotenant_operator.operator_settings import POOL_TOKEN, TOKENS_FOLDER
from cotenant_operator.planned import Plan
from cotenant_operator.planner import Planned
from cotenant_operator.render.gateway import render_gateway
from cotenant_operator.tenant_status import TENANT_CONDITIONS, invalid_status, tenant_status
from cotenant_serving.contract_gateway import GatewayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayInput:
    planned: Planned
    routes: Mapping[str, tuple[str, ...] | None]
    """Pool → base URLs of its conductors; None: nobody has looked at it yet."""
    gateways: int
    """Ready gateway pods."""
    published: GatewayConfig | None
    """What stands in the Secret now."""
    now_s: float


def new_config(given: GatewayInput) -> GatewayConfig | None:
    """What is to be published; None when that is what stands there."""
    before = given.published
    plan = given.planned.plan
    config = render_gateway(
        plan,
        given.planned.manifests,
        generation=0,
        conductors=_conductors(given),
        pool_token_file=f"{TOKENS_FOLDER}/{POOL_TOKEN}",
    )
    config = msgspec.structs.replace(
        config,
        gateways=max(1, given.gateways),
        models=tuple(
            msgspec.structs.replace(model, created=_created(model.name, given.planned)) for model in config.models
        ),
    )
    if before is not None and config == msgspec.structs.replace(before, generation=0):
        return None
    generation = max(int(given.now_s * 1000), before.generation + 1 if before else 0)
    return msgspec.structs.replace(config, generation=generation)


def _conductors(given: GatewayInput) -> list[str]:
    """Those of a pool that nobody has looked at yet stay: an operator that just began knows less than gateways do."""
    known = [url for urls in given.routes.values() for url in urls or ()]
    waiting = any(urls is None for urls in given.routes.values())
    before = given.published.conductors if given.published and waiting else ()
    return sorted({*known, *before})


def _created(model: str, planned: Planned) -> int:
    namespace, _, name = model.partition("/")
    return int(instant(planned.manifests.created.get((MODELS.kind, namespace, name))) or 0)


def tenant_statuses(planned: Planned, tenants: Mapping[Key, Object], now_s: float) -> tuple[SetStatus, ...]:
    """Of the tenants whose status is not as it should be."""
    plans = {tenant.name: tenant for tenant in planned.plan.tenants}
    now = utc(now_s)
    changed: list[SetStatus] = []
    for key, live in tenants.items():
        metadata, previous = live["metadata"], live.get("status")
        if metadata.get("deletionTimestamp"):
            continue
        problem = planned.problems.get((TENANTS.kind, *key))
        if problem is not None:
            status = invalid_status(
                TENANT_CONDITIONS, [problem], generation=metadata["generation"], previous=previous, now=now
            )
        elif metadata["name"] in plans:
            status = tenant_status(
                plans[metadata["name"]], generation=metadata["generation"], previous=previous, now=now
            )
        else:
            continue
        changed += changed_status(TENANTS, live, status)
    return tuple(changed)


def changed_pools(before: Plan, now: Plan, names: Iterable[str]) -> list[str]:
    """Those of `names` whose models are planned differently."""
    return [name for name in names if _of(before, name) != _of(now, name)]


def _of(plan: Plan, pool: str) -> tuple[object, ...]:
    groups = next((item.groups for item in plan.pools if item.name == pool), ())
    return (groups, tuple(model for model in plan.models if model.pool == pool))
