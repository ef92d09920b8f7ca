"""One pass over what gateways must know: plan and routes → their configuration, and the status of tenants. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from cotenant_operator.actions import SetStatus, changed_status
from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.dated import condition
from cotenant_operator.gateway_room import Fitted, Room, fitted
from cotenant_operator.instants import utc
from cotenant_operator.kinds import MODELS, TENANTS, Key, Kind, Object
from cotenant_operator.kube_objects import instant
from cotenant_operator.objects import Manifests
from cotenant_operator.operator_settings import POOL_TOKEN, TOKENS_FOLDER
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


def fitting_config(given: GatewayInput, room: Room) -> Fitted:
    """What gateways must know, without a generation, as far as it has room."""
    manifests = given.planned.manifests
    config = render_gateway(
        given.planned.plan,
        manifests,
        generation=0,
        conductors=_conductors(given),
        pool_token_file=f"{TOKENS_FOLDER}/{POOL_TOKEN}",
    )
    config = msgspec.structs.replace(
        config,
        gateways=max(1, given.gateways),
        models=tuple(
            msgspec.structs.replace(model, created=_created_s(manifests, MODELS, model.name))
            for model in config.models
        ),
    )
    tenants = {tenant.name: _created_s(manifests, TENANTS, tenant.name) for tenant in config.tenants}
    return fitted(config, tenants, room)


def newer(wanted: GatewayConfig, before: GatewayConfig | None, now_s: float) -> GatewayConfig | None:
    """What is to be published; None when that is what stands there."""
    if before is not None and wanted == msgspec.structs.replace(before, generation=0):
        return None
    generation = max(int(now_s * 1000), before.generation + 1 if before else 0)
    return msgspec.structs.replace(wanted, generation=generation)


def _conductors(given: GatewayInput) -> list[str]:
    """Those of a pool that nobody has looked at yet stay: an operator that just began knows less than gateways do."""
    known = [url for urls in given.routes.values() for url in urls or ()]
    waiting = any(urls is None for urls in given.routes.values())
    before = given.published.conductors if given.published and waiting else ()
    return sorted({*known, *before})


def _created_s(manifests: Manifests, kind: Kind, full_name: str) -> int:
    namespace, _, name = full_name.rpartition("/")
    return int(instant(manifests.created.get((kind.kind, namespace, name))) or 0)


def said_left_out(models: Mapping[Key, Object]) -> frozenset[str]:
    """Models whose status says that they were left out: what an operator that just began knows of it."""
    return frozenset(
        "/".join(key)
        for key, live in models.items()
        if condition(live.get("status"), "Ready").get("reason") == ClusterReason.GATEWAYS_FULL
    )


def tenant_statuses(
    planned: Planned, tenants: Mapping[Key, Object], now_s: float, fitting: Fitted
) -> tuple[SetStatus, ...]:
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
            plan = plans[metadata["name"]]
            status = tenant_status(
                plan,
                generation=metadata["generation"],
                previous=previous,
                now=now,
                left_out=plan.name in fitting.tenants,
                models_left_out=len(fitting.models.intersection(plan.models)),
            )
        else:
            continue
        changed += changed_status(TENANTS, live, status)
    return tuple(changed)


def changed_pools(before: Planned, now: Planned, names: Iterable[str]) -> list[str]:
    """Those of `names` whose models are planned differently or known better, or whose Secret came or went."""
    return [name for name in names if _of(before, name) != _of(now, name)]


def _of(planned: Planned, pool: str) -> tuple[object, ...]:
    groups = next((item.groups for item in planned.plan.pools if item.name == pool), ())
    models = tuple(model for model in planned.plan.models if model.pool == pool)
    return (groups, models, planned.missing_secrets.get(pool, ""), planned.kept.get(pool, b""))
