"""`cotenant get tenants`: tenants with what they see and their limits, without what could identify a key. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cotenant_serving.contract_gateway import GatewayTenant


def tenant_rows(
    tenants: Sequence[GatewayTenant], keys: Mapping[str, int], tasks: Mapping[str, str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """`keys`: tenant → how many keys open something in its name. `tasks`: of models that are shown with theirs."""
    columns = ("TENANT", "KEYS", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENT", "MODELS")
    return columns, [
        (
            tenant.name,
            str(keys.get(tenant.name, 0)),
            _limit(tenant.limits.requests_per_minute),
            _limit(tenant.limits.tokens_per_minute),
            _limit(tenant.limits.concurrent_requests),
            ", ".join(f"{name} ({tasks[name]})" if name in tasks else name for name in tenant.models) or "-",
        )
        for tenant in tenants
    ]


def tenant_document(tenants: Sequence[GatewayTenant], keys: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "name": tenant.name,
            "keys": keys.get(tenant.name, 0),
            "limits": msgspec.to_builtins(tenant.limits),
            "models": list(tenant.models),
        }
        for tenant in tenants
    ]


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)
