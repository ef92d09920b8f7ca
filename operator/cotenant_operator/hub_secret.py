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


def with_missing_secret(facts: Mapping[str, Facts], problem: str) -> dict[str, Facts]:
    """A pool's facts, in which a model that its hub does not show says that the pool had no token to show it."""
    return {source: _with(said, problem) if source.startswith("hf://") else said for source, said in facts.items()}


def _with(said: Facts, problem: str) -> Facts:
    if problem and isinstance(said, ModelNotFoundError):
        return ModelNotFoundError(f"{said.message}; {problem}")
    return said
