"""What stands in the YAML files, and what the model files say: the whole input of a plan. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.spec import GPUPool, ModelDeployment, Secret, Tenant

ObjectKey = tuple[str, str, str]
"""(kind, namespace or "", name)"""

SYSTEM_NAMESPACE = "cotenant-system"
"""In a cluster the Secrets of tenants stand here, and nowhere else, unless the operator runs in another one."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """Every object of the given files, checked one by one, in the order of the files."""

    models: tuple[ModelDeployment, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    pools: tuple[GPUPool, ...] = ()
    secrets: tuple[Secret, ...] = ()
    places: Mapping[ObjectKey, str] = field(default_factory=dict)
    """`models.yaml:12` for each object that came from a file."""
    namespace: str = ""
    """In a cluster, the operator's own: Secrets are read there, and nowhere else. Empty for files."""
    created: Mapping[ObjectKey, str] = field(default_factory=dict)
    """`2026-11-26T22:00:00Z` for each object of a cluster; empty for files, which have no order in time."""

    def place(self, kind: str, name: str, namespace: str = "") -> str:
        return self.places.get((kind, namespace, name), f"{kind} {name}")

    def secret(self, name: str) -> Secret | None:
        """The Secret of that name: in the operator's namespace; of files, in cotenant-system, else in default.

        (Files without a namespace put it there.)
        """
        found = {secret.metadata.namespace: secret for secret in self.secrets if secret.metadata.name == name}
        if self.namespace:
            return found.get(self.namespace)
        return found.get(SYSTEM_NAMESPACE) or found.get("default")


@dataclass(frozen=True, slots=True)
class World:
    """The input of `plan.plan`: manifests, and facts or the reason why there are none."""

    manifests: Manifests
    facts: Mapping[str, ModelFacts | CacheError] = field(default_factory=dict)
    """By `spec.model`, where all models are read from one hub with one token."""
    of_pools: Mapping[str, Mapping[str, ModelFacts | CacheError]] = field(default_factory=dict)
    """GPUPool → the same, where pools have hubs and tokens of their own: in a cluster."""

    def facts_of(self, model: ModelDeployment) -> ModelFacts | CacheError | None:
        return self.of_pools.get(model.spec.pool, self.facts).get(model.spec.model or "")

    def with_pool(self, pool: GPUPool) -> "World":
        """A copy with a pool that is in no file, such as this machine's default."""
        return replace(self, manifests=replace(self.manifests, pools=(*self.manifests.pools, pool)))

    def with_tenant(self, tenant: Tenant, secret: Secret, place: str) -> "World":
        """A copy with a tenant that is in no file, and the Secret that holds its key, which stands at `place`."""
        known = self.manifests
        key: ObjectKey = ("Secret", secret.metadata.namespace, secret.metadata.name)
        return replace(
            self,
            manifests=replace(
                known,
                tenants=(*known.tenants, tenant),
                secrets=(*known.secrets, secret),
                places={**known.places, key: place},
            ),
        )
