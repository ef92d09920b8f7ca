"""GPUPool → KubeRay's RayCluster, the Service of its conductor, and what of it needs new pods. Pure.

    head pod      ray-head (no CPU of Ray's) · conductor · autoscaler (KubeRay adds it)
    worker pods   one group for each of spec.workers, one device for each pod

`min`, `max`, `idleAfter` and new groups are changed in place. Everything else of a pod is its template.
"""

from collections.abc import Mapping
from typing import Any

from cotenant_operator.cluster_names import (
    OURS,
    POOL_LABEL,
    TEMPLATE_ANNOTATION,
    conductor_service,
)
from cotenant_operator.kinds import POOLS, RAY_CLUSTERS
from cotenant_operator.operator_settings import CONDUCTOR_PORT, OperatorSettings
from cotenant_operator.render.head_pod import autoscaler_options, head_group, redis_options
from cotenant_operator.render.pool_template import PoolTemplate, digest
from cotenant_operator.render.worker_group import worker_group
from cotenant_operator.spec import GPUPool

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
LEAVING_IDLE_S = 5
"""A RayCluster on its way out gives a device back so long after the last engine on it."""
_IN_PLACE = ("minReplicas", "maxReplicas")


def render_raycluster(pool: GPUPool, settings: OperatorSettings, name: str, *, uid: str = "") -> dict[str, Any]:
    """The RayCluster `name` of a pool; `uid` is the GPUPool's, which then owns it."""
    redis = redis_options(pool)
    queue = {QUEUE_LABEL: pool.spec.queue_name} if pool.spec.queue_name else {}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**_labels(pool), **queue},
            "annotations": {TEMPLATE_ANNOTATION: pool_template(pool, settings).to_json()},
            **({"ownerReferences": [_owner(pool, uid)]} if uid else {}),
        },
        "spec": {
            "rayVersion": settings.ray.version,
            "authOptions": {"mode": "token"},
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": autoscaler_options(pool, settings),
            **({"gcsFaultToleranceOptions": redis} if redis else {}),
            "headGroupSpec": head_group(pool, settings, name),
            "workerGroupSpecs": [worker_group(pool, worker, settings, name) for worker in pool.spec.workers],
        },
    }


def render_conductor_service(
    pool: GPUPool, settings: OperatorSettings, name: str, *, uid: str = ""
) -> dict[str, Any]:
    """The Service of the conductor of RayCluster `name`; `uid` is the RayCluster's, which then owns it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": conductor_service(name),
            "namespace": settings.namespace,
            "labels": _labels(pool),
            **({"ownerReferences": [RAY_CLUSTERS.owner(name, uid)]} if uid else {}),
        },
        "spec": {
            "type": "ClusterIP",
            "selector": {"ray.io/cluster": name, "ray.io/node-type": "head"},
            # A conductor that answers is asked although Ray, beside it, is not well.
            "publishNotReadyAddresses": True,
            "ports": [
                {"name": "http", "port": CONDUCTOR_PORT, "targetPort": CONDUCTOR_PORT, "protocol": "TCP"},
            ],
        },
    }


def pool_template(pool: GPUPool, settings: OperatorSettings) -> PoolTemplate:
    """What the pods are made from, without what is changed in place. The same for every name of the RayCluster."""
    options = autoscaler_options(pool, settings)
    del options["idleTimeoutSeconds"]
    head = [settings.ray.version, options, redis_options(pool), head_group(pool, settings, "NAME")]
    groups = {worker.name: worker_group(pool, worker, settings, "NAME") for worker in pool.spec.workers}
    return PoolTemplate(
        digest([pool.metadata.name, *head]),
        {
            name: digest({field: value for field, value in group.items() if field not in _IN_PLACE})
            for name, group in groups.items()
        },
    )


def template_hash(pool: GPUPool, settings: OperatorSettings) -> str:
    """8 hex digits of `pool_template`: the name of a RayCluster that is made for it ends with them."""
    return pool_template(pool, settings).hash


def keep_scale(rendered: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """`rendered` with the numbers of pods of `live`, for they are Ray's autoscaler's.

    Worker groups are one atomic list for the API server. Apply it with the `resourceVersion` of `live`, or the
    autoscaler's next word may be lost.
    """
    found = {group["groupName"]: group for group in live.get("spec", {}).get("workerGroupSpecs", ())}
    return _with_groups(
        rendered,
        lambda group: {
            field: found[group["groupName"]][field]
            for field in ("replicas", "scaleStrategy")
            if field in found.get(group["groupName"], {})
        },
    )


def leaving(live: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a RayCluster on its way out: no pod is kept without engines, and an empty one goes at once."""
    changed = _with_groups(live, lambda _: {"minReplicas": 0})
    spec = changed["spec"]
    options = {**spec.get("autoscalerOptions", {}), "idleTimeoutSeconds": LEAVING_IDLE_S}
    return {**changed, "spec": {**spec, "autoscalerOptions": options}}


def _with_groups(raycluster: Mapping[str, Any], more: Any) -> dict[str, Any]:
    spec = raycluster["spec"]
    groups = [{**group, **more(group)} for group in spec["workerGroupSpecs"]]
    return {**raycluster, "spec": {**spec, "workerGroupSpecs": groups}}


def _labels(pool: GPUPool) -> dict[str, str]:
    return {POOL_LABEL: pool.metadata.name, **OURS}


def _owner(pool: GPUPool, uid: str) -> dict[str, Any]:
    return {**POOLS.owner(pool.metadata.name, uid), "blockOwnerDeletion": True}
