"""GPUPool → the weight cache's container, its volume, and what is beside pods: preload list, Service, agents. Pure.

worker pod   cache (a native sidecar) · ray-worker, which sees the volume read-only and asks by a Unix socket
node         with spec.cache.path: an agent, so that a node without a worker pod has the models, too
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from cotenant_cache.contract import PreloadItem, PreloadList
from cotenant_operator.cluster_names import CACHE_CONTAINER, CACHE_LABEL, OURS, POOL_LABEL, cache_objects
from cotenant_operator.kinds import POOLS
from cotenant_operator.operator_settings import (
    CACHE_PORT,
    POOL_TOKEN,
    TOKENS_FOLDER,
    TOKENS_SECRET,
    OperatorSettings,
)
from cotenant_operator.render.agent_places import agent_places
from cotenant_operator.render.pod_parts import (
    POD_SECURITY,
    container,
    env_of,
    field_of_the_pod,
    resources_of,
    secret_volume,
)
from cotenant_operator.spec import GPUPool
from cotenant_serving.contract import Desired

Json = dict[str, Any]

HUB_TOKEN_FOLDER = "/etc/cotenant/hub"  # noqa: S105 - a folder
PRELOAD_FOLDER = "/etc/cotenant/preload"
PRELOAD_FILE = "preload.json"
SOCKET_FOLDER = "/run/cotenant"
SOCKET = f"{SOCKET_FOLDER}/cache.sock"
_COMPONENT = {"app.kubernetes.io/component": "cache"}
_TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
STARTS_S = 600
"""What looking at a large volume after a crash may take, before a pod counts as failing."""


def cache_folder(pool: GPUPool) -> str:
    """Where models are, in the pod."""
    return pool.spec.cache.path or "/var/lib/cotenant/models"


def cache_host(pool: GPUPool) -> str:
    """DNS name in our namespace, whose addresses are those of all of the pool's caches."""
    return cache_objects(pool.metadata.name)


def cache_labels(pool: GPUPool) -> dict[str, str]:
    return {CACHE_LABEL: pool.metadata.name}


def sidecar(pool: GPUPool, settings: OperatorSettings) -> Json:
    """As a native sidecar it is there before Ray, and ends after engines have: they hold leases of it till then."""
    return {**_cache(pool, settings, [f"--socket={SOCKET}"], [_socket_mount()]), "restartPolicy": "Always"}


def reader_mounts(pool: GPUPool) -> list[Json]:
    """Of the container with engines: only cache instances write to the volume."""
    return [{"name": "models", "mountPath": cache_folder(pool), "readOnly": True}, _socket_mount()]


def cache_volumes(pool: GPUPool) -> list[Json]:
    """Of a pod with the sidecar, beside those that all pods have."""
    return [*_volumes(pool), {"name": "cache-socket", "emptyDir": {}}]


def _volumes(pool: GPUPool) -> list[Json]:
    cache, hub = pool.spec.cache, pool.spec.cache.hub
    models: Json = {"emptyDir": {}}
    if cache.path is not None:
        # The folder must be there, writable for our user: one that kubelet makes belongs to root.
        models = {"hostPath": {"path": cache.path, "type": "Directory"}}
    elif cache.claim_name is not None:
        models = {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    preload = {"name": cache_objects(pool.metadata.name), "optional": True}
    return [
        {"name": "models", **models},
        {"name": "preload", "configMap": preload},
        *([secret_volume("hub-token", hub.secret_ref.name, [hub.secret_ref.key])] if hub.secret_ref else []),
    ]


def _cache(pool: GPUPool, settings: OperatorSettings, more: list[str], mounts: list[Json]) -> Json:
    cache, hub = pool.spec.cache, pool.spec.cache.hub
    hub_token = f"{HUB_TOKEN_FOLDER}/{hub.secret_ref.key}" if hub.secret_ref else None
    options: dict[str, Any] = {
        "root": cache_folder(pool),
        "listen": f"0.0.0.0:{CACHE_PORT}",
        "token-file": f"{TOKENS_FOLDER}/{POOL_TOKEN}",
        "preload": f"{PRELOAD_FOLDER}/{PRELOAD_FILE}",
        "peers-dns": f"{cache_host(pool)}:{CACHE_PORT}",
        "hub-endpoint": hub.endpoint,
        "node": "$(NODE_NAME)",
        "budget": cache.size,
        "rate": cache.download_rate,
        "verify-rate": cache.verify_rate,
        "hub-token-file": hub_token,
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    probe = {"httpGet": {"path": "/healthz", "port": CACHE_PORT}}
    return container(
        settings,
        CACHE_CONTAINER,
        resources_of(settings.resources.cache, {}, {}),
        command=["python", "-m", "cotenant_serving.weight_cache", *words, *more],
        env=_environment(settings, hub.endpoint, hub_token),
        ports=[{"name": "cache", "containerPort": CACHE_PORT, "protocol": "TCP"}],
        startupProbe={**probe, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": STARTS_S},
        livenessProbe={**probe, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
        volumeMounts=[
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
            {"name": "models", "mountPath": cache_folder(pool)},
            {"name": "tokens", "mountPath": TOKENS_FOLDER, "readOnly": True},
            {"name": "preload", "mountPath": PRELOAD_FOLDER, "readOnly": True},
            *([{"name": "hub-token", "mountPath": HUB_TOKEN_FOLDER, "readOnly": True}] if hub.secret_ref else []),
            *mounts,
            *(dict(mount) for mount in settings.extra_volume_mounts),
        ],
    )


def _environment(settings: OperatorSettings, endpoint: str, token_file: str | None) -> list[Json]:
    """With the hub and token that the instance has as options, for `cotenant cache` in this container."""
    own = {"NODE_NAME": field_of_the_pod("spec.nodeName"), "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108
    own |= {"HF_ENDPOINT": endpoint, **({"HF_TOKEN_PATH": token_file} if token_file else {})}
    # A token in the environment would be taken before that of the file.
    not_extra = {"HF_ENDPOINT", *(_TOKEN_NAMES if token_file else ())}
    extra = [item for item in settings.extra_env if item["name"] not in not_extra]
    return list({str(item["name"]): dict(item) for item in (*env_of(own), *extra)}.values())


def _socket_mount() -> Json:
    return {"name": "cache-socket", "mountPath": SOCKET_FOLDER}


def render_preload(pool: GPUPool, settings: OperatorSettings, desired: Desired, *, uid: str) -> Json:
    """ConfigMap with what every node should have: models of which an engine is always kept come first."""
    items = {
        model.engine.source: PreloadItem(source=model.engine.source, priority=int(model.min_engines > 0))
        for model in sorted(desired.models, key=lambda model: model.min_engines > 0)
        if model.engine is not None and model.engine.source.startswith("hf://")
    }
    listed = PreloadList(items=tuple(items[source] for source in sorted(items)))
    return _object(pool, settings, uid, "v1", "ConfigMap", data={PRELOAD_FILE: msgspec.json.encode(listed).decode()})


def render_peers(pool: GPUPool, settings: OperatorSettings, *, uid: str) -> Json:
    """Headless Service: a name for all caches of the pool, also of pods that are not ready yet."""
    port = {"name": "cache", "port": CACHE_PORT, "targetPort": CACHE_PORT, "protocol": "TCP"}
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": cache_labels(pool),
        "publishNotReadyAddresses": True,
        "ports": [port],
    }
    return _object(pool, settings, uid, "v1", "Service", labels=_COMPONENT, spec=spec)


def render_cache_policy(pool: GPUPool, settings: OperatorSettings, *, uid: str) -> Json:
    """The pool's pods, heads too, reach its caches wherever they are."""
    allowed = {
        "from": [{"podSelector": {"matchLabels": {POOL_LABEL: pool.metadata.name}}}],
        "ports": [{"protocol": "TCP", "port": CACHE_PORT}],
    }
    spec = {"podSelector": {"matchLabels": cache_labels(pool)}, "policyTypes": ["Ingress"], "ingress": [allowed]}
    return _object(pool, settings, uid, "networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def render_agent(pool: GPUPool, settings: OperatorSettings, *, uid: str) -> Json:
    """DaemonSet on the nodes where a pod of any worker group may run."""
    labels = {**OURS, POOL_LABEL: pool.metadata.name, **_COMPONENT, **cache_labels(pool)}
    spec = {
        "selector": {"matchLabels": {CACHE_LABEL: pool.metadata.name, **_COMPONENT}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "securityContext": dict(POD_SECURITY),
                "enableServiceLinks": False,
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 5,
                **agent_places(pool.spec.workers),
                **_pull_secrets(settings),
                "containers": [_cache(pool, settings, [], [])],
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    secret_volume("tokens", TOKENS_SECRET, [POOL_TOKEN]),
                    *_volumes(pool),
                    *(dict(volume) for volume in settings.extra_volumes),
                ],
            },
        },
    }
    return _object(pool, settings, uid, "apps/v1", "DaemonSet", spec=spec)


def _pull_secrets(settings: OperatorSettings) -> Json:
    names = [{"name": name} for name in settings.image.pull_secrets]
    return {"imagePullSecrets": names} if names else {}


def _object(
    pool: GPUPool,
    settings: OperatorSettings,
    uid: str,
    version: str,
    kind: str,
    labels: Mapping[str, str] = MappingProxyType({}),
    **rest: Any,
) -> Json:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": cache_objects(pool.metadata.name),
            "namespace": settings.namespace,
            "labels": {POOL_LABEL: pool.metadata.name, **OURS, **labels},
            "ownerReferences": [POOLS.owner(pool.metadata.name, uid)],
        },
        **rest,
    }
