"""The pod of a pool's Ray head: Ray, the conductor beside it, and KubeRay's autoscaler. Pure."""

from typing import Any

from cotenant_operator.cluster_names import CONDUCTOR_CONTAINER, HEAD_CONTAINER, conductor_url
from cotenant_operator.operator_settings import (
    CACHE_PORT,
    CONDUCTOR_PORT,
    CONTROL_TOKEN,
    POOL_TOKEN,
    TOKENS_FOLDER,
    TOKENS_SECRET,
    OperatorSettings,
)
from cotenant_operator.ray_environment import RAY_START
from cotenant_operator.render.cache_parts import cache_folder, cache_host
from cotenant_operator.render.pod_parts import (
    CONTAINER_SECURITY,
    container,
    environment,
    field_of_the_pod,
    mounts,
    pod_template,
    resources_of,
    secret_volume,
    volumes,
)
from cotenant_operator.render.worker_group import LOGS_FOLDER
from cotenant_operator.spec import GPUPool

GCS_PORT = 6379
"""Ray's autoscaler looks for the head on this port, whatever KubeRay is told."""
STATE_FOLDER = "/var/lib/cotenant/conductor"
GRACE_S = 30
"""No request passes through the head, and engines outlive it where there is a Redis."""

_AUTOSCALER = {
    # Looks at what is asked for: a model that wakes waits for the next look, and a roll for those that free devices.
    "AUTOSCALER_UPDATE_INTERVAL_S": "2",
    # A pod that waits for a node, and that nothing needs any more. Ray's default is an hour: it would take the
    # next device that comes free, or have the nodes' own autoscaler bring a machine for nobody.
    "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S": "60",
}

_AWAIT_RAYLET = "until [ -S /tmp/ray/session_latest/sockets/raylet ]; do sleep 0.2; done"


def head_group(pool: GPUPool, settings: OperatorSettings, raycluster: str) -> dict[str, Any]:
    """`headGroupSpec` of a RayCluster. No CPU, so that nothing but Serve's controller lands there."""
    return {
        "rayStartParams": {
            **RAY_START,
            "num-cpus": "0",
            # A dozen processes that nothing here asks; KubeRay wants one for RayJobs and RayServices only.
            "include-dashboard": "false",
        },
        "template": pod_template(
            pool,
            settings,
            pool.spec.head,
            labels={"app.kubernetes.io/component": "head"},
            spec={
                # A Ray driver finds its node by the raylet's process.
                "shareProcessNamespace": True,
                # The conductor's container starts again by itself; KubeRay's default for pods, said aloud.
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": GRACE_S,
                "containers": [_ray(pool, settings), _conductor(pool, settings, raycluster)],
                "volumes": [
                    *volumes(settings, raycluster),
                    # KubeRay's name: its autoscaler shares it.
                    {"name": "ray-logs", "emptyDir": {}},
                    {"name": "state", "emptyDir": {}},
                    secret_volume("tokens", TOKENS_SECRET, [POOL_TOKEN, CONTROL_TOKEN]),
                ],
            },
        ),
    }


def autoscaler_options(pool: GPUPool, settings: OperatorSettings) -> dict[str, Any]:
    """`autoscalerOptions` of a RayCluster. The container gets its token from KubeRay, in its environment."""
    return {
        "image": settings.image.name,
        "imagePullPolicy": settings.image.pull_policy,
        "idleTimeoutSeconds": round(pool.spec.idle_after or settings.ray.idle_timeout),
        "resources": resources_of(settings.resources.autoscaler, {}, {}),
        "securityContext": dict(CONTAINER_SECURITY),
        "env": [item for item in environment(settings, _AUTOSCALER) if not item["name"].startswith("RAY_AUTH_")],
        "volumeMounts": [mount for mount in mounts(settings) if mount["name"] not in ("shared-mem", "ray-token")],
    }


def redis_options(pool: GPUPool) -> dict[str, Any] | None:
    """`gcsFaultToleranceOptions` of a RayCluster, with a reference to the password; None without Redis."""
    redis = pool.spec.head.redis
    if redis is None:
        return None
    options: dict[str, Any] = {"redisAddress": redis.address}
    if redis.secret_ref is not None:
        reference = {"name": redis.secret_ref.name, "key": redis.secret_ref.key}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": reference}}
    return options


def _ray(pool: GPUPool, settings: OperatorSettings) -> dict[str, Any]:
    own = {
        # Version 2 by this, not by `autoscalerOptions.version`, with which KubeRay lets no container of the head
        # start again, the conductor's neither.
        "RAY_enable_autoscaler_v2": "1",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    return container(
        settings,
        HEAD_CONTAINER,
        resources_of(settings.resources.head, pool.spec.head.resources, {}),
        env=environment(settings, own),
        ports=[
            {"name": "gcs-server", "containerPort": GCS_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 8080, "protocol": "TCP"},
        ],
        volumeMounts=[*mounts(settings), {"name": "ray-logs", "mountPath": "/tmp/ray"}],  # noqa: S108
    )


def _conductor(pool: GPUPool, settings: OperatorSettings, raycluster: str) -> dict[str, Any]:
    options = {
        "ray-address": f"$(POD_IP):{GCS_PORT}",
        "host": "0.0.0.0",  # noqa: S104 - operator, gateways and engines call it, with tokens
        "port": CONDUCTOR_PORT,
        "advertise": conductor_url(raycluster, settings.namespace),
        "state": STATE_FOLDER,
        "pool-token-file": f"{TOKENS_FOLDER}/{POOL_TOKEN}",
        "control-token-file": f"{TOKENS_FOLDER}/{CONTROL_TOKEN}",
        "cache-dir": cache_folder(pool),
        "cache-port": CACHE_PORT,
        "cache-name": cache_host(pool),
        "log-dir": LOGS_FOLDER,
        "request-timeout-s": f"{settings.request_timeout:g}",
    }
    words = ["python", "-m", "cotenant_serving.conductor", *(f"--{name}={value}" for name, value in options.items())]
    return container(
        settings,
        CONDUCTOR_CONTAINER,
        resources_of(settings.resources.conductor, {}, {}),
        command=["/bin/sh", "-c", f'{_AWAIT_RAYLET}; exec "$@"', "conductor", *words, "--engine-logs-to-container"],
        env=environment(settings, {"POD_IP": field_of_the_pod("status.podIP")}),
        ports=[{"name": "conductor", "containerPort": CONDUCTOR_PORT, "protocol": "TCP"}],
        readinessProbe={"httpGet": {"path": "/readyz", "port": CONDUCTOR_PORT}, "periodSeconds": 5},
        volumeMounts=[
            *mounts(settings),
            {"name": "ray-logs", "mountPath": "/tmp/ray"},  # noqa: S108
            {"name": "state", "mountPath": STATE_FOLDER},
            {"name": "tokens", "mountPath": TOKENS_FOLDER, "readOnly": True},
        ],
    )
