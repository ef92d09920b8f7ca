"""Who sees which model, and with which keys. Pure; keys are compared here and never kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotenant_operator.near import near
from cotenant_operator.objects import Manifests
from cotenant_operator.planned import TenantPlan
from cotenant_operator.spec import ModelDeployment, Tenant
from cotenant_serving.contract import Limits

_SHORT_KEY = 32
_MAKE_ONE = "make one with `openssl rand -hex 32`"


@dataclass(frozen=True, slots=True)
class Tenancy:
    tenants: tuple[TenantPlan, ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]


def plan_tenancy(manifests: Manifests) -> Tenancy:
    """Each tenant's models and usable keys. A key that two tenants share belongs to neither."""
    warnings: list[str] = []
    errors: list[str] = []
    seen = {model.full_name: _who_sees(model, manifests, warnings) for model in manifests.models}
    keys = _usable_keys(manifests, warnings, errors)
    tenants = tuple(
        TenantPlan(
            name=tenant.metadata.name,
            namespaces=tenant.spec.namespaces,
            models=tuple(sorted(model for model, names in seen.items() if tenant.metadata.name in names)),
            limits=_limits(tenant),
            secret_keys=tuple(keys[tenant.metadata.name]),
        )
        for tenant in manifests.tenants
    )
    return Tenancy(tenants, tuple(warnings), tuple(errors))


def api_key(manifests: Manifests, secret_name: str, key: str) -> str | None:
    """The API key that a tenant's secretRef points to, without white space around it; None when it is not there."""
    secret = manifests.secret(secret_name)
    value = secret.value(key) if secret else None
    return None if value is None else value.strip()


def _who_sees(model: ModelDeployment, manifests: Manifests, warnings: list[str]) -> frozenset[str]:
    namespace, name = model.metadata.namespace, model.metadata.name
    bound = {tenant.metadata.name for tenant in manifests.tenants if namespace in tenant.spec.namespaces}
    place = manifests.place("ModelDeployment", name, namespace)
    if model.spec.tenants is None:
        if manifests.tenants and not bound:
            warnings.append(
                f"{place}: no tenant is bound to namespace {namespace!r}, so nobody sees {model.full_name}; "
                "add it to spec.namespaces of a Tenant, or set spec.tenants"
            )
        return frozenset(bound)
    by_name = {tenant.metadata.name: tenant for tenant in manifests.tenants}
    visible = set()
    for listed in model.spec.tenants:
        tenant = by_name.get(listed)
        if tenant is None:
            warnings.append(f"{place}: spec.tenants: {_unknown_tenant(listed, list(by_name))}")
        elif listed in bound or any(item.covers(namespace, name) for item in tenant.spec.accepts):
            visible.add(listed)
        else:
            warnings.append(
                f"{place}: spec.tenants: {listed!r} is not bound to namespace {namespace!r} and does not accept "
                f"{name!r}, so it does not see it; "
                f"add {{namespace: {namespace}, models: [{name}]}} to its spec.accepts"
            )
    return frozenset(visible)


def _unknown_tenant(name: str, known: Sequence[str]) -> str:
    match = near(name, known)
    question = f"did you mean {match!r}? " if match else ""
    return f"there is no tenant {name!r}; {question}known: {', '.join(known) or 'none'}"


def _limits(tenant: Tenant) -> Limits:
    limits = tenant.spec.limits
    return Limits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_requests=limits.concurrent_requests,
    )


def _usable_keys(manifests: Manifests, warnings: list[str], errors: list[str]) -> dict[str, list[tuple[str, str]]]:
    usable: dict[str, list[tuple[str, str]]] = {}
    owners: dict[str, set[str]] = {}
    for tenant in manifests.tenants:
        name = tenant.metadata.name
        place = manifests.place("Tenant", name)
        if not tenant.spec.keys:
            warnings.append(
                f"{place}: tenant {name!r} has no spec.keys; "
                f"only keys that `cotenant key create {name}` makes can call in its name"
            )
        usable[name] = []
        for reference in (item.secret_ref for item in tenant.spec.keys):
            key = api_key(manifests, reference.name, reference.key)
            problem = _missing(manifests, reference.name, reference.key) if key is None else _unusable(key)
            if problem or key is None:
                errors.append(f"{place}: tenant {name!r}: Secret {reference.name!r} {problem}")
                continue
            if len(key) < _SHORT_KEY or "change-me" in key.lower():
                warnings.append(
                    f"{place}: tenant {name!r}: key {reference.key!r} of Secret {reference.name!r} can be guessed; "
                    + _MAKE_ONE
                )
            owners.setdefault(key, set()).add(name)
            usable[name].append((reference.name, reference.key))
    _take_shared_keys(manifests, usable, owners, errors)
    return usable


def _missing(manifests: Manifests, secret_name: str, key: str) -> str:
    secret = manifests.secret(secret_name)
    if secret is None:
        known = ", ".join(sorted({item.metadata.name for item in manifests.secrets})) or "none"
        return f"is in none of the files; add it (Secrets there: {known})"
    return f"has no key {key!r}; it has: {', '.join(secret.keys) or 'none'}"


def _unusable(key: str) -> str:
    if not key:
        return f"holds an empty key; {_MAKE_ONE}"
    if not key.isascii() or not key.isprintable() or " " in key:
        return f"holds a key with characters that no HTTP header can carry; {_MAKE_ONE}"
    return ""


def _take_shared_keys(
    manifests: Manifests,
    usable: dict[str, list[tuple[str, str]]],
    owners: dict[str, set[str]],
    errors: list[str],
) -> None:
    for key, names in owners.items():
        if len(names) < 2:
            continue
        errors.append(
            f"tenants {' and '.join(sorted(names))} have the same key, so nobody could tell them apart; "
            f"it works for neither: give each its own ({_MAKE_ONE})"
        )
        for name in names:
            usable[name] = [item for item in usable[name] if api_key(manifests, *item) != key]
