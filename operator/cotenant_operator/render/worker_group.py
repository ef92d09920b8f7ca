"""One worker group of a pool: pods that hold one GPU, one slice, or CPU memory each. Pure."""

from typing import Any

from cotenant_operator.cluster_names import GROUP_LABEL, WORKER_CONTAINER
from cotenant_operator.operator_settings import POOL_TOKEN, TOKENS_FOLDER, TOKENS_SECRET, OperatorSettings
from cotenant_operator.quantity import MIB
from cotenant_operator.ray_environment import RAY_START
from cotenant_operator.render.cache_parts import (
    SOCKET,
    cache_labels,
    cache_volumes,
    reader_mounts,
    sidecar,
)
from cotenant_operator.render.pod_parts import (
    container,
    environment,
    field_of_the_pod,
    mounts,
    pod_template,
    resources_of,
    secret_volume,
    volumes,
)
from cotenant_operator.spec import GPUPool, Worker
from cotenant_serving.contract import ENGINE_PORTS, share_resource

SHELL_ANNOTATION = "cotenant.dev/shell"
SHELL_FOLDER = "/etc/cotenant/shell"
SHELL = "[ -n \"$KUBERAY_GEN_RAY_START_CMD\" ] || trap 'exit 143' TERM\n"
"""Read by every bash of a worker pod. KubeRay's container `wait-gcs-ready` is one that takes no SIGTERM: a pod that
is not wanted any more before its head answers would hold its device for all of its grace. Ray's own container has
that variable, and must have no trap: only without one does bash hand its place, and so the signal, over to Ray."""
LOGS_FOLDER = "/var/log/cotenant"
SUCCESSOR_S = 300
"""So long the engines of a node that is drained serve on, when no other is ready. It costs time only then."""
RAY_STOPS_S = 30
"""What Ray itself may take, after it waited for the engines of a node that is to go."""
RAY_MEMORY_BYTES = 1024 * MIB
"""Of a pod, beside what its engines share: raylet, agents and Serve's own processes."""


def worker_group(pool: GPUPool, worker: Worker, settings: OperatorSettings, raycluster: str) -> dict[str, Any]:
    """One of `workerGroupSpecs`. `replicas` belong to Ray's autoscaler and do not stand here.

    Ray's resources are said, not left to be guessed: KubeRay and Ray's autoscaler see no GPU in most MIG slices.
    """
    return {
        "groupName": worker.name,
        "minReplicas": worker.min,
        "maxReplicas": worker.max,
        "numOfHosts": 1,
        "resources": {
            "CPU": "1",
            "GPU": "1" if worker.device == "cuda" else "0",
            share_resource(worker.name): "1",
        },
        "rayStartParams": dict(RAY_START),
        "template": pod_template(
            pool,
            settings,
            worker,
            labels={"app.kubernetes.io/component": "worker", GROUP_LABEL: worker.name, **cache_labels(pool)},
            annotations={SHELL_ANNOTATION: SHELL},
            spec={
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": SUCCESSOR_S + settings.drain_s + RAY_STOPS_S,
                "initContainers": [sidecar(pool, settings)],
                "containers": [_ray(pool, worker, settings)],
                "volumes": [*volumes(settings, raycluster), *_own_volumes(pool)],
            },
        ),
    }


def _ray(pool: GPUPool, worker: Worker, settings: OperatorSettings) -> dict[str, Any]:
    own: dict[str, Any] = {
        "NODE_NAME": field_of_the_pod("spec.nodeName"),
        "POD_NAME": field_of_the_pod("metadata.name"),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(SUCCESSOR_S + settings.drain_s),
        "COTENANT_CACHE_SOCKET": SOCKET,
        "BASH_ENV": f"{SHELL_FOLDER}/env",
    }
    return container(
        settings,
        WORKER_CONTAINER,
        _resources(worker, settings),
        env=environment(settings, own),
        ports=[{"name": "engine", "containerPort": ENGINE_PORTS.start, "protocol": "TCP"}],
        volumeMounts=[
            *mounts(settings),
            {"name": "tokens", "mountPath": TOKENS_FOLDER, "readOnly": True},
            {"name": "logs", "mountPath": LOGS_FOLDER},
            {"name": "shell", "mountPath": SHELL_FOLDER, "readOnly": True},
            *reader_mounts(pool),
        ],
    )


def _resources(worker: Worker, settings: OperatorSettings) -> dict[str, Any]:
    """One device; where engines share the pod's own memory, that is asked for, and is the wall around them."""
    defaults, limits = settings.resources.worker, {}
    if worker.device == "cpu":
        limits["memory"] = f"{-(-(worker.memory + RAY_MEMORY_BYTES) // MIB)}Mi"
        defaults = defaults.model_copy(update={"requests": {**defaults.requests, **limits}})
    if worker.device_resource:
        limits[worker.device_resource] = "1"
    return resources_of(defaults, worker.resources, limits)


def _own_volumes(pool: GPUPool) -> list[dict[str, Any]]:
    return [
        secret_volume("tokens", TOKENS_SECRET, [POOL_TOKEN]),
        {"name": "logs", "emptyDir": {}},
        {"name": "shell", "downwardAPI": {"items": [_annotation_file("env", SHELL_ANNOTATION)]}},
        *cache_volumes(pool),
    ]


def _annotation_file(path: str, annotation: str) -> dict[str, Any]:
    return {"path": path, **field_of_the_pod(f"metadata.annotations['{annotation}']")}
