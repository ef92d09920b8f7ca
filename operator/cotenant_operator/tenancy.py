"""Who sees which model, and with which keys. Pure; keys are compared here and never kept."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cotenant_operator.near import near
from cotenant_operator.objects import Manifests
from cotenant_operator.planned import KeyProblem, TenantPlan
from cotenant_operator.spec import ModelDeployment, SecretRef, Tenant
from cotenant_serving.contract_gateway import Limits

_SHORT_KEY = 32
_MAKE_ONE = "make one with `openssl rand -hex 32`"


@dataclass(frozen=True, slots=True)
class Tenancy:
    tenants: tuple[TenantPlan, ...]
    names_taken: Mapping[str, tuple[str, ...]]
    """`namespace/name` of a model whose bare name means an older one → for which tenants."""
    warnings: tuple[str, ...]
    errors: tuple[str, ...]


def plan_tenancy(manifests: Manifests) -> Tenancy:
    """Each tenant's models and usable keys. A key that two tenants share belongs to neither."""
    warnings: list[str] = []
    errors: list[str] = []
    seen = {model.full_name: _who_sees(model, manifests, warnings) for model in manifests.models}
    keys, problems = _usable_keys(manifests, warnings, errors)
    names = [tenant.metadata.name for tenant in manifests.tenants]
    models = {name: tuple(sorted(model for model, by in seen.items() if name in by)) for name in names}
    claims = {name: _claims(models[name], manifests) for name in names}
    tenants = tuple(
        TenantPlan(
            name=tenant.metadata.name,
            namespaces=tenant.spec.namespaces,
            models=models[tenant.metadata.name],
            claims=claims[tenant.metadata.name],
            limits=_limits(tenant),
            secret_keys=tuple(keys[tenant.metadata.name]),
            key_problems=tuple(problems.get(tenant.metadata.name, ())),
        )
        for tenant in manifests.tenants
    )
    return Tenancy(tenants, _names_taken(tenants), tuple(warnings), tuple(errors))


def _claims(models: Collection[str], manifests: Manifests) -> tuple[str, ...]:
    """Of models of one bare name, the one that was there first. Without times, as in files, nobody claims a name."""
    return tuple(
        min(rivals, key=lambda model: (_created(model, manifests), model))
        for rivals in _by_bare_name(models).values()
        if len(rivals) > 1 and all(_created(model, manifests) for model in rivals)
    )


def _by_bare_name(models: Collection[str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for model in models:
        named.setdefault(model.partition("/")[2], []).append(model)
    return named


def _created(model: str, manifests: Manifests) -> str:
    namespace, _, name = model.partition("/")
    return manifests.created.get(("ModelDeployment", namespace, name), "")


def _names_taken(tenants: Sequence[TenantPlan]) -> dict[str, tuple[str, ...]]:
    taken: dict[str, tuple[str, ...]] = {}
    for tenant in tenants:
        claimed = {model.partition("/")[2]: model for model in tenant.claims}
        for model in tenant.models:
            if claimed.get(model.partition("/")[2], model) != model:
                taken[model] = (*taken.get(model, ()), tenant.name)
    return taken


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


_Usable = dict[str, list[tuple[str, str]]]
_Problems = dict[str, list[KeyProblem]]


def _usable_keys(manifests: Manifests, warnings: list[str], errors: list[str]) -> tuple[_Usable, _Problems]:
    usable: _Usable = {}
    problems: _Problems = {}
    owners: dict[str, set[str]] = {}
    for tenant in manifests.tenants:
        name = tenant.metadata.name
        place = manifests.place("Tenant", name)
        if not tenant.spec.keys:
            warnings.append(f"{place}: tenant {name!r} {_no_keys(name, manifests)}")
            problems[name] = [KeyProblem("NoKeys", _no_keys(name, manifests))]
        usable[name] = []
        for reference in (item.secret_ref for item in tenant.spec.keys):
            key = api_key(manifests, reference.name, reference.key)
            problem = _problem(manifests, reference, key)
            if problem:
                errors.append(f"{place}: tenant {name!r}: {problem.message}")
                problems.setdefault(name, []).append(problem)
            if problem or key is None:
                continue
            if len(key) < _SHORT_KEY or "change-me" in key.lower():
                warnings.append(
                    f"{place}: tenant {name!r}: key {reference.key!r} of Secret {reference.name!r} can be guessed; "
                    + _MAKE_ONE
                )
            owners.setdefault(key, set()).add(name)
            usable[name].append((reference.name, reference.key))
    _take_shared_keys(manifests, usable, owners, errors, problems)
    return usable, problems


def _no_keys(name: str, manifests: Manifests) -> str:
    if manifests.namespace:
        return f"has no spec.keys, so nobody can call in its name; {_make_secret(f'{name}-key', 'token', manifests)}"
    return f"has no spec.keys; only keys that `cotenant key create {name}` makes can call in its name"


def _make_secret(name: str, key: str, manifests: Manifests) -> str:
    return (
        f"make one: kubectl -n {manifests.namespace} create secret generic {name} "
        f"--from-literal={key}=$(openssl rand -hex 32)"
    )


def _problem(manifests: Manifests, reference: SecretRef, key: str | None) -> KeyProblem | None:
    said = f"Secret {reference.name!r} "
    if key is None:
        return KeyProblem("KeyMissing", said + _missing(manifests, reference))
    unusable = _unusable(key)
    return KeyProblem("KeyUnusable", said + unusable) if unusable else None


def _missing(manifests: Manifests, reference: SecretRef) -> str:
    secret = manifests.secret(reference.name)
    if secret is not None:
        return f"has no key {reference.key!r}; it has: {', '.join(secret.keys) or 'none'}"
    if manifests.namespace:
        return f"is not in namespace {manifests.namespace}; {_make_secret(reference.name, reference.key, manifests)}"
    known = ", ".join(sorted({item.metadata.name for item in manifests.secrets})) or "none"
    return f"is in none of the files; add it (Secrets there: {known})"


def _unusable(key: str) -> str:
    if not key:
        return f"holds an empty key; {_MAKE_ONE}"
    if not key.isascii() or not key.isprintable() or " " in key:
        return f"holds a key with characters that no HTTP header can carry; {_MAKE_ONE}"
    return ""


def _take_shared_keys(
    manifests: Manifests, usable: _Usable, owners: dict[str, set[str]], errors: list[str], problems: _Problems
) -> None:
    for key, names in owners.items():
        if len(names) < 2:
            continue
        message = (
            f"tenants {' and '.join(sorted(names))} have the same key, so nobody could tell them apart; "
            f"it works for neither: give each its own ({_MAKE_ONE})"
        )
        errors.append(message)
        for name in names:
            usable[name] = [item for item in usable[name] if api_key(manifests, *item) != key]
            problems.setdefault(name, []).append(KeyProblem("KeyShared", message))
