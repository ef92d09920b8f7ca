"""`cotenant get tenants`: the gateway's configuration, without what could identify a key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cotenant_serving.contract import GatewayConfig, GatewayTenant


class TenantsUnknownError(Exception):
    """There is no gateway configuration in the state directory; the message says what to do."""


def read_tenants(state: Path) -> Sequence[GatewayTenant]:
    """Tenants in `<state>/gateway.json`. Raises TenantsUnknownError."""
    path = state / "gateway.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=GatewayConfig).tenants
    except FileNotFoundError:
        raise TenantsUnknownError(
            f"nothing runs on the state directory {state}. Start it with `cotenant up -f FILE`, "
            "or name another one with --state DIR."
        ) from None
    except OSError as error:
        raise TenantsUnknownError(f"{path} cannot be read: {error.strerror}; run as the user of `up`") from None
    except msgspec.MsgspecError:
        raise TenantsUnknownError(f"{path} is damaged; start `cotenant up` again") from None


def tenant_rows(tenants: Sequence[GatewayTenant]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("TENANT", "KEYS", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENT", "MODELS")
    return columns, [
        (
            tenant.name,
            str(len(tenant.key_sha256)),
            _limit(tenant.limits.requests_per_minute),
            _limit(tenant.limits.tokens_per_minute),
            _limit(tenant.limits.concurrent_requests),
            ", ".join(tenant.models) or "-",
        )
        for tenant in tenants
    ]


def tenant_document(tenants: Sequence[GatewayTenant]) -> list[dict[str, Any]]:
    return [
        {
            "name": tenant.name,
            "keys": len(tenant.key_sha256),
            "limits": msgspec.to_builtins(tenant.limits),
            "models": list(tenant.models),
        }
        for tenant in tenants
    ]


def _limit(value: int | None) -> str:
    return "unlimited" if value is None else str(value)
