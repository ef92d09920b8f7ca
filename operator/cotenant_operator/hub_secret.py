"""The Secret with the hub's token of a pool: what is said where it is not there. Pure."""

from collections.abc import Mapping

from cotenant_cache.errors import CacheError, ModelNotFoundError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.objects import Manifests
from cotenant_operator.spec import GPUPool

Facts = ModelFacts | CacheError


def missing_hub_secrets(manifests: Manifests) -> dict[str, str]:
    """GPUPool → which Secret or key its worker pods wait for, and the command that makes it. In a cluster."""
    found = {pool.metadata.name: _missing(pool, manifests) for pool in manifests.pools}
    return {name: problem for name, problem in found.items() if problem}


def _missing(pool: GPUPool, manifests: Manifests) -> str:
    reference = pool.spec.cache.hub.secret_ref
    if reference is None:
        return ""
    name, key, namespace = reference.name, reference.key, manifests.namespace
    said = f"Secret {name!r} (spec.cache.hub.secretRef of GPUPool {pool.metadata.name}) "
    waits = "so no new worker pod starts"
    secret = manifests.secret(name)
    if secret is None:
        return (
            f"{said}is not in namespace {namespace}, {waits}; make it with key {key!r}: "
            f"kubectl -n {namespace} create secret generic {name} --from-file={key}=FILE, the token in FILE"
        )
    if key in secret.keys:
        return ""
    return (
        f"{said}in namespace {namespace} has no key {key!r}, {waits}; add it, the token in FILE: "
        f"kubectl -n {namespace} create secret generic {name} --from-file={key}=FILE --dry-run=client -o yaml | "
        "kubectl apply -f -"
    )


def with_missing_secrets(
    facts: Mapping[str, Facts], manifests: Manifests, missing: Mapping[str, str]
) -> dict[str, Facts]:
    """Facts in which the model that a hub does not show says that nobody had a token to show it."""
    said = dict(facts)
    for model in reversed(manifests.models):  # the first that names a source says with whose token it was read
        source, problem = model.spec.model or "", missing.get(model.spec.pool, "")
        known = facts.get(source)
        if source.startswith("hf://") and isinstance(known, ModelNotFoundError):
            said[source] = ModelNotFoundError(f"{known.message}; {problem}") if problem else known
    return said
