"""Plan → the gateway's configuration. Pure; API keys come in and only their SHA-256 goes out."""

import hashlib
from collections.abc import Sequence

from cotenant_operator.objects import Manifests
from cotenant_operator.planned import Plan, TenantPlan
from cotenant_operator.tenancy import api_key
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant


def render_gateway(
    plan: Plan,
    manifests: Manifests,
    *,
    generation: int,
    conductors: Sequence[str],
    pool_token_file: str,
    created: int = 0,
) -> GatewayConfig:
    """All tenants and all models, refused ones too: their callers are told why, not that they do not exist.

    `conductors` are base URLs, `created` is Unix seconds. `manifests` are those the plan was made from.
    """
    return GatewayConfig(
        generation=generation,
        conductors=tuple(conductors),
        pool_token_file=pool_token_file,
        tenants=tuple(_tenant(tenant, manifests) for tenant in sorted(plan.tenants, key=lambda item: item.name)),
        models=tuple(
            GatewayModel(name=model.name, task=model.task, created=created)
            for model in sorted(plan.models, key=lambda item: item.name)
        ),
    )


def _tenant(tenant: TenantPlan, manifests: Manifests) -> GatewayTenant:
    return GatewayTenant(
        name=tenant.name,
        key_sha256=_hashes(tenant, manifests),
        limits=tenant.limits,
        models=tenant.models,
        claims=tenant.claims,
    )


def _hashes(tenant: TenantPlan, manifests: Manifests) -> tuple[str, ...]:
    keys = (api_key(manifests, secret, key) for secret, key in tenant.secret_keys)
    return tuple(dict.fromkeys(hashlib.sha256(key.encode()).hexdigest() for key in keys if key))
