"""The configuration: checked, and indexed for look-ups. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant
from cotenant_serving.gateway.auth import Keyring


class ConfigError(Exception):
    """The configuration cannot be used; the message says which file, which field and what to do."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant with the models that it sees."""

    tenant: GatewayTenant
    models: Mapping[str, GatewayModel]
    """`namespace/name` → model."""
    bare: Mapping[str, tuple[str, ...]]
    """`name` → every visible `namespace/name` that ends in it, sorted."""
    named: Mapping[str, GatewayModel]
    """Every name that means one model → that model."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One version of the configuration, indexed. Immutable: a request keeps the version it began with."""

    config: GatewayConfig
    tenants: Mapping[str, TenantView]
    keyring: Keyring
    models: frozenset[str]


def index(config: GatewayConfig) -> Directory:
    """Raises ConfigError: a number is below 1, or a key or tenant stands twice, so whose would the request be?"""
    if config.gateways < 1:
        raise ConfigError(f"gateways: is {config.gateways}; it must be 1 or more.")
    models = {model.name: model for model in config.models}
    tenants: dict[str, TenantView] = {}
    tenant_by_key: dict[str, str] = {}
    for tenant in config.tenants:
        if tenant.name in tenants:
            raise ConfigError(f"tenants: '{tenant.name}' stands twice; merge the two.")
        _check_limits(tenant)
        tenants[tenant.name] = _view(tenant, models)
        for digest in tenant.key_sha256:
            owner = tenant_by_key.setdefault(digest.lower(), tenant.name)
            if owner != tenant.name:
                raise ConfigError(f"key_sha256: '{owner}' and '{tenant.name}' have the same key; make a new one.")
    return Directory(config, tenants, Keyring(tenant_by_key.items()), frozenset(models))


def _check_limits(tenant: GatewayTenant) -> None:
    for name, value in msgspec.structs.asdict(tenant.limits).items():
        if value is not None and value < 1:
            raise ConfigError(
                f"tenants: limits.{name} of '{tenant.name}' is {value}; it must be 1 or more, or null for no limit."
            )


def _view(tenant: GatewayTenant, models: Mapping[str, GatewayModel]) -> TenantView:
    seen = {name: models[name] for name in sorted(set(tenant.models)) if name in models}
    bare: dict[str, tuple[str, ...]] = {}
    for name in seen:
        short = name.partition("/")[2]
        bare[short] = (*bare.get(short, ()), name)
    bare |= {name.partition("/")[2]: (name,) for name in tenant.claims if name in seen}
    named = {short: seen[names[0]] for short, names in bare.items() if len(names) == 1}
    return TenantView(tenant, seen, bare, named | seen)


def parse(raw: bytes) -> Directory:
    """JSON of a GatewayConfig → Directory. Raises ConfigError."""
    try:
        return index(msgspec.json.decode(raw, type=GatewayConfig))
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise ConfigError(f"not a gateway configuration: {problem}") from None
