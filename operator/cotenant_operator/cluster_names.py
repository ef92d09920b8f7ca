"""What the objects of a pool are called in a cluster. Pure."""

from collections.abc import Iterable, Mapping

from cotenant_operator.operator_settings import CONDUCTOR_PORT

POOL_LABEL = "cotenant.dev/pool"
GROUP_LABEL = "cotenant.dev/group"
CACHE_LABEL = "cotenant.dev/cache"
"""On pods with a weight cache: the pool."""
MANAGER_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "cotenant"
OURS: Mapping[str, str] = {MANAGER_LABEL: MANAGER, "app.kubernetes.io/part-of": "cotenant"}
"""Labels of what the operator makes."""
FIELD_MANAGER = "cotenant-operator"

TEMPLATE_ANNOTATION = "cotenant.dev/template"
"""On a RayCluster: the `PoolTemplate` that its pods are made from, as JSON."""
ROLL_ANNOTATION = "cotenant.dev/roll"
"""On a RayCluster that is on its way out: the `Handover` so far, as JSON."""

HEAD_CONTAINER = "ray-head"
WORKER_CONTAINER = "ray-worker"
CONDUCTOR_CONTAINER = "conductor"
CACHE_CONTAINER = "cache"
AUTOSCALER_CONTAINER = "autoscaler"
"""KubeRay adds it to the head."""
WAIT_CONTAINER = "wait-gcs-ready"
"""KubeRay's init container of each worker."""


def raycluster_name(pool: str, template_hash: str, taken: Iterable[str] = ()) -> str:
    """`<pool>-<8 hex>`, at most 50 characters, and none of `taken`.

    A name is taken when a RayCluster of the pool that began with the same template has grown since. KubeRay refuses
    a first digit, and cuts names above 50 characters for its Secrets and service accounts.
    """
    first = f"r{pool}" if pool[0].isdigit() else pool
    number = int(template_hash, 16)
    used = set(taken)
    while (name := f"{first}-{number:08x}") in used:
        number = (number + 1) % 2**32
    return name


def cache_objects(pool: str) -> str:
    """Name of the preload list, the Service and the agents of a pool's weight caches."""
    return f"cotenant-cache-{pool}"


def facts_object(pool: str) -> str:
    """Name of the ConfigMap with what a pool's models are."""
    return f"cotenant-facts-{pool}"


def conductor_service(raycluster: str) -> str:
    return f"{raycluster}-conductor"


def conductor_url(raycluster: str, namespace: str) -> str:
    """Base URL of the conductor of a RayCluster, for operator and gateways."""
    return f"http://{conductor_service(raycluster)}.{namespace}.svc:{CONDUCTOR_PORT}"
