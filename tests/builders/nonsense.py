"""Objects that cannot be meant so: what is written, and a part of what the API server must say to it.

Each is a change of an object that is as it should be: path, value, and words of the refusal, which name what to write
instead. `kubectl apply` refuses them before anything is stored; `cotenant up` refuses the same.
"""

import copy
from dataclasses import dataclass
from typing import Any


class _Gone:
    def __repr__(self) -> str:
        return "gone"  # the same in every process: it stands in names of tests


GONE = _Gone()
"""As a value: the field is taken away."""
_MODEL = {
    "apiVersion": "cotenant.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "nonsense", "namespace": "default"},
    "spec": {"model": "hf://org/name"},
}
_TENANT = {
    "apiVersion": "cotenant.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {"name": "nonsense"},
    "spec": {
        "namespaces": ["search"],
        "accepts": [{"namespace": "ads", "models": ["*"]}],
        "keys": [{"secretRef": {"name": "key", "key": "token"}}],
        "limits": {"requestsPerMinute": 600},
    },
}
_WORKER = {"name": "cpu", "device": "cpu", "memory": "8Gi"}
_POOL = {
    "apiVersion": "cotenant.dev/v1alpha1",
    "kind": "GPUPool",
    "metadata": {"name": "nonsense"},
    "spec": {"workers": [_WORKER]},
}


@dataclass(frozen=True, slots=True)
class Nonsense:
    item: dict[str, Any]
    said: str
    """A part of what the API server says: what is allowed, or what to write."""
    path: str


def _changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    item = copy.deepcopy(base)
    at: Any = item
    *way, last = path.split(".")
    for step in way:
        at = at[int(step)] if step.isdigit() else at.setdefault(step, {})
    if value is GONE:
        del at[last]
    else:
        at[int(last) if last.isdigit() else last] = value
    return item


def _all(base: dict[str, Any], *changes: tuple[str, Any, str]) -> list[Nonsense]:
    return [Nonsense(_changed(base, path, value), said, f"{path}={value!r}") for path, value, said in changes]


def _containers(*names: str, before: str = "") -> dict[str, Any]:
    """A podTemplate; `before` is the name of an init container."""
    first = {"initContainers": [{"name": before, "image": "busybox"}]} if before else {}
    return {"spec": {"containers": [{"name": name, "image": "busybox"} for name in names], **first}}


_SOURCE = "must be hf://owner/name, hf://owner/name@revision, or file:///folder"
_QUANTITY = "must be a quantity of bytes such as 12Gi, 9856Mi, 1.5G or 1073741824"
_DURATION = "must be a duration such as 10m, 1h30m or 45s"
_LOWER_CASE = "must be lower-case letters, digits and '-'"

UNUSUAL = [
    *(
        _changed(_MODEL, path, value)
        for path, value in (
            ("spec.model", "hf://gpt2"),
            ("spec.model", "hf://org/name@refs/pr/1"),
            ("spec.model", "hf://org/name@" + "a" * 40),
            ("spec.model", "file:///srv/my models/chat"),
            ("spec.model", "file://../models/chat"),
            ("spec.gpu", {"memory": 1073741824}),
            ("spec.gpu", {"memory": "1.5G"}),
            ("spec.gpu", {"memory": "0.5Gi"}),
            ("spec.gpu", {"memory": "9856Mi"}),
            ("spec.gpu", {"fraction": 1}),
            ("spec.gpu", {"fraction": 0.001}),
            ("spec.gpu", {"mig": "1g.10gb.me"}),
            ("spec.replicas", {"idleAfter": "1h30m"}),
            ("spec.replicas", {"idleAfter": "250ms"}),
            ("spec.replicas", {"idleAfter": "1.5s"}),
            ("spec.replicas", {"idleAfter": 0}),
            ("spec.replicas", {"min": 1}),
            ("spec.engine", {"batchWait": 0}),
            ("spec.engine", {"batchWait": "1s"}),
            ("spec.engine", {"batchWait": "0.5s"}),
            ("spec.engine", {"batchWait": "12ms"}),
            ("spec.engine", {"contextTokens": 8192, "concurrency": 1}),
        )
    ),
    *(
        _changed(_POOL, path, value)
        for path, value in (
            ("spec.namespaces", ["*"]),
            ("spec.namespaces", []),
            ("spec.workers.0.resource", "nvidia.com/gpu.shared"),
            ("spec.workers.0", {**_WORKER, "resource": "nvidia.com/mig-1g.10gb.me", "sharing": "mig"}),
            ("spec.workers.0.resources", {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": "500m"}}),
            ("spec.workers.0.affinity", {"nodeAffinity": {"anything": {"at": ["all"]}}}),
            ("spec.workers.0.podTemplate", {"spec": {"containers": [{"name": "ray-worker", "env": []}]}}),
            ("spec.workers.0.podTemplate", _containers("autoscaler", "sidecar")),
            ("spec.workers.0.podTemplate", {"spec": {"containers": [{"$patch": "replace"}]}}),
            ("spec.head", {"podTemplate": _containers("ray-head", "conductor", "wait-gcs-ready")}),
            ("spec.head", {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}),
            ("spec.workers.0.tolerations", [{"operator": "Exists"}]),
            ("spec.head", {"redis": {"address": "redis.databases.svc:6379"}, "nodeSelector": {"a": "b"}}),
            ("spec.idleAfter", "10s"),
            ("spec.idleAfter", "1m30s"),
            ("spec.workers", [{**_WORKER, "name": f"group-{number}"} for number in range(15)]),
        )
    ),
]
"""Objects that look odd and are fine."""

NONSENSE = [
    *_all(
        _MODEL,
        ("spec.model", GONE, "set model: hf://owner/name or file:///folder (or task: echo"),
        ("spec.model", "Qwen/Qwen3-0.6B", _SOURCE),
        ("spec.model", "https://huggingface.co/Qwen/Qwen3-0.6B", _SOURCE),
        ("spec.model", "hf://Qwen/../Qwen3", _SOURCE),
        ("spec.model", "hf://a/b/c", _SOURCE),
        ("spec.model", "file://models/chat", _SOURCE),
        ("spec.model", "file:///models/../../etc", "must be the folder's own path, without '..'"),
        ("spec.task", "chat", '"generate", "embed", "rerank", "classify", "tensor", "echo"'),
        ("spec.task", "echo", "model is not for task echo, which loads nothing; remove it"),
        ("spec.gpu", {}, "exactly one of memory, fraction, mig, whole is allowed"),
        ("spec.gpu", {"memory": "4Gi", "fraction": 0.5}, "exactly one of memory, fraction, mig, whole is allowed"),
        ("spec.gpu", {"memory": "4GB"}, _QUANTITY),
        ("spec.gpu", {"memory": "four"}, _QUANTITY),
        ("spec.gpu", {"memory": "0"}, "must be above 0; write a size such as 12Gi"),
        ("spec.gpu", {"memory": 0}, "greater than or equal to 1"),
        ("spec.gpu", {"memory": "-4Gi"}, "must not be below 0; write a size such as 12Gi"),
        ("spec.gpu", {"memory": "4000m"}, "must be whole bytes; M is a million bytes"),
        ("spec.gpu", {"fraction": 1.5}, "must be above 0 and at most 1; write gpu.memory for a size in bytes"),
        ("spec.gpu", {"fraction": 0}, "must be above 0 and at most 1"),
        ("spec.gpu", {"fraction": "half"}, "must be of type number"),
        ("spec.gpu", {"mig": "1g10gb"}, "must be a MIG profile such as 1g.10gb"),
        ("spec.gpu", {"whole": False}, "must be true; leave it out otherwise"),
        ("spec.gpu", {"mem": "4Gi"}, 'unknown field "spec.gpu.mem"'),
        ("spec.replicas", {"min": 3, "max": 2}, "min is above max; raise max or lower min"),
        ("spec.replicas", {"min": -1}, "greater than or equal to 0"),
        ("spec.replicas", {"max": 0}, "greater than or equal to 1"),
        ("spec.replicas", {"max": "two"}, "must be of type integer"),
        ("spec.replicas", {"idleAfter": "10 minutes"}, _DURATION),
        ("spec.replicas", {"idleAfter": 600}, _DURATION),
        ("spec.replicas", {"idleAfter": "30s10m"}, _DURATION),
        ("spec.replica", {"min": 1}, 'unknown field "spec.replica"'),
        ("spec.tenants", [], "should have at least 1 items"),
        ("spec.tenants", ["Search"], _LOWER_CASE),
        ("spec.engine", {"contextTokens": 8}, "greater than or equal to 16"),
        ("spec.engine", {"concurrency": 0}, "greater than or equal to 1"),
        ("spec.engine", {"maxBatch": 5000}, "less than or equal to 1024"),
        ("spec.engine", {"batchWait": "2s"}, "must be at most 1s"),
        ("spec.engine", {"batchWait": "1m"}, "must be at most 1s"),
        ("spec.engine", {"loadSeconds": 3}, "engine.loadSeconds is only for task echo; remove it"),
        ("spec.pool", "Big_Pool", _LOWER_CASE),
        ("spec.pool", "p" * 41, "may not be more than 40"),
        ("metadata.name", "n" * 41, "at most 40 characters"),
        ("metadata.name", "with.a.dot", _LOWER_CASE),
    ),
    *_all(
        _changed(_MODEL, "spec.task", "generate"),
        ("spec.engine", {"maxBatch": 8}, "engine.maxBatch is only for tasks embed, rerank, classify, tensor; remove"),
        ("spec.engine", {"allocate": "1Gi"}, "engine.allocate is only for task echo; remove it"),
    ),
    *_all(
        _changed(_MODEL, "spec.task", "tensor"),
        ("spec.engine", {"contextTokens": 64}, "engine.contextTokens is only for tasks generate, embed"),
    ),
    *_all(
        _TENANT,
        ("spec.namespaces.0", "Search", _LOWER_CASE),
        ("spec.accepts.0.models", [], "should have at least 1 items"),
        ("spec.accepts.0.namespace", GONE, "Required value"),
        ("spec.keys.0", {"secretRef": {"name": "key"}}, "Required value"),
        ("spec.keys.0", {"value": "a-key-in-plain-sight"}, 'unknown field "spec.keys[0].value"'),
        ("spec.limits.requestsPerMinute", 0, "greater than or equal to 1"),
        ("spec.limits.requestsPerMinute", "many", "must be of type integer"),
        ("metadata.name", "with.a.dot", _LOWER_CASE),
    ),
    *_all(
        _POOL,
        ("spec.workers", [], "should have at least 1 items"),
        ("spec.workers.0.device", "gpu", 'supported values: "cpu", "cuda"'),
        ("spec.workers.0.memory", GONE, "Required value"),
        ("spec.workers.0.memory", "80GiB", _QUANTITY),
        ("spec.workers.0.memory", "0Gi", "must be above 0; write a size such as 12Gi"),
        ("spec.workers.0.sharing", "mps", 'supported values: "timeSlice", "mig"'),
        ("spec.workers.0.sharing", "mig", "sharing mig goes with nvidia.com/mig-<profile>, and only with it"),
        ("spec.workers.0.resource", "nvidia.com/mig-1g.10gb", "sharing mig goes with nvidia.com/mig-<profile>"),
        ("spec.workers.0.resource", "gpu", "must be an extended resource of Kubernetes, DOMAIN/NAME"),
        ("spec.workers.0.min", 3, "min is above max; raise max or lower min"),
        ("spec.workers.0.name", "GPU", _LOWER_CASE),
        ("spec.workers", [_WORKER, _WORKER], "Duplicate value"),
        ("spec.workers", [{**_WORKER, "name": f"group-{number}"} for number in range(16)], "at most 15 items"),
        ("spec.workers.0.tolerations", [{"keys": "x"}], 'unknown field "spec.workers[0].tolerations[0].keys"'),
        ("spec.workers.0.nodeSelectors", {"a": "b"}, 'unknown field "spec.workers[0].nodeSelectors"'),
        ("spec.head", {"podTemplate": _containers("autoscaler")}, "is the container that KubeRay adds to the head"),
        ("spec.head", {"podTemplate": _containers(before="autoscaler")}, "give yours another name"),
        ("spec.head", {"podTemplate": _containers(before="conductor")}, "runs beside others, not before them"),
        ("spec.workers.0.podTemplate", _containers("a", "wait-gcs-ready"), "that KubeRay puts before each worker"),
        ("spec.workers.0.podTemplate", _containers(before="wait-gcs-ready"), "give yours another name"),
        ("spec.workers.0.podTemplate", _containers(before="ray-worker"), "runs beside others, not before them"),
        ("spec.head", {"redis": {"address": "redis"}}, "must be host:port, such as redis:6379"),
        ("spec.cache", {"path": "models"}, "must be an absolute path, such as /var/lib/cotenant/models"),
        ("spec.cache", {"hub": {"endpoint": "huggingface.co"}}, "must begin with https:// or http://"),
        ("spec.idleAfter", "5s", "must be at least 10s"),
        ("spec.queueName", "Team A", _LOWER_CASE),
        ("metadata.name", "n" * 41, "at most 40 characters"),
    ),
]
