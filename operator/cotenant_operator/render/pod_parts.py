"""What every pod of a pool has: user, environment, files and volumes. Pure.

All of it satisfies the pod security standard `restricted`. KubeRay gives the container that it puts before a worker
(`wait-gcs-ready`) and the Job that cleans Redis up the security context, environment and mounts of ours.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cotenant_operator.cluster_names import POOL_LABEL
from cotenant_operator.operator_settings import OperatorSettings, Resources
from cotenant_operator.ray_environment import RAY_ENVIRONMENT
from cotenant_operator.render.strategic_merge import merge
from cotenant_operator.spec import GPUPool, Worker
from cotenant_operator.spec_pool import Head

Json = dict[str, Any]

USER = 1000
RAY_TOKEN_FOLDER = "/etc/cotenant/ray"  # noqa: S105 - a folder
RAY_TOKEN_KEY = "auth_token"  # noqa: S105 - KubeRay's name for it
SHARED_MEMORY = "512Mi"
"""Of /dev/shm, which holds Ray's object store and nothing else."""

POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}

_AUTHENTICATION = {
    "RAY_AUTH_MODE": RAY_ENVIRONMENT["RAY_AUTH_MODE"],
    # KubeRay puts the token itself into this one unless it is there. Ray takes the file when it is empty.
    "RAY_AUTH_TOKEN": "",
    "RAY_AUTH_TOKEN_PATH": f"{RAY_TOKEN_FOLDER}/{RAY_TOKEN_KEY}",
}
_WRITABLE_HOME = {"HOME": "/tmp", "USER": "cotenant", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108 - an emptyDir


def environment(settings: OperatorSettings, own: Mapping[str, Any]) -> list[Json]:
    """Ours, then `own` (name → value or `valueFrom`), then extraEnv. Nothing turns Ray's tokens off."""
    base = [*env_of({**RAY_ENVIRONMENT, **_WRITABLE_HOME, **own}), *settings.extra_env, *env_of(_AUTHENTICATION)]
    return list({str(item["name"]): dict(item) for item in base}.values())


def env_of(values: Mapping[str, Any]) -> list[Json]:
    """Plain text → `value`, anything else → `valueFrom`."""
    return [
        {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in values.items()
    ]


def field_of_the_pod(path: str) -> Json:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def volumes(settings: OperatorSettings, raycluster: str) -> list[Json]:
    """Those of every pod; extraVolumes last."""
    return [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
        secret_volume("ray-token", raycluster, [RAY_TOKEN_KEY]),
        *(dict(volume) for volume in settings.extra_volumes),
    ]


def mounts(settings: OperatorSettings) -> list[Json]:
    """Those of every container of ours; extraVolumeMounts last."""
    return [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
        {"name": "shared-mem", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "ray-token", "mountPath": RAY_TOKEN_FOLDER, "readOnly": True},
        *(dict(mount) for mount in settings.extra_volume_mounts),
    ]


def secret_volume(volume: str, secret: str, keys: Iterable[str]) -> Json:
    """Files that only our group may read."""
    items = [{"key": key, "path": key} for key in keys]
    return {"name": volume, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def container(settings: OperatorSettings, name: str, resources: Mapping[str, Any], **fields: Any) -> Json:
    return {
        "name": name,
        "image": settings.image.name,
        "imagePullPolicy": settings.image.pull_policy,
        "securityContext": dict(CONTAINER_SECURITY),
        **({"resources": dict(resources)} if resources else {}),
        **fields,
    }


def pod_template(
    pool: GPUPool,
    settings: OperatorSettings,
    own: Head | Worker,
    *,
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """`spec` with what is the same for all pods and what the pool passes on; its podTemplate is applied last."""
    passed_on = {
        "nodeSelector": dict(own.node_selector),
        "tolerations": list(own.tolerations),
        "affinity": dict(own.affinity),
        "runtimeClassName": own.runtime_class_name,
        "imagePullSecrets": [{"name": name} for name in settings.image.pull_secrets],
    }
    base = {
        "metadata": {
            "labels": {"app.kubernetes.io/part-of": "cotenant", POOL_LABEL: pool.metadata.name, **labels},
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "spec": {
            "securityContext": dict(POD_SECURITY),
            "enableServiceLinks": False,
            **{name: value for name, value in passed_on.items() if value},
            **spec,
        },
    }
    return merge(base, own.pod_template)


def resources_of(defaults: Resources, own: Mapping[str, Any], device: Mapping[str, Any]) -> Json:
    """Requests and limits, quantities as text: the settings', then the `device`'s limits, then a pool's `own`.

    A limit of its own without a request is the request too, as everywhere in Kubernetes.
    """
    own_limits, own_requests = own.get("limits", {}), own.get("requests", {})
    defaults_kept = {name: value for name, value in defaults.requests.items() if name not in own_limits}
    parts = {"requests": {**defaults_kept, **own_requests}, "limits": {**defaults.limits, **device, **own_limits}}
    return {part: {name: str(value) for name, value in values.items()} for part, values in parts.items() if values}
