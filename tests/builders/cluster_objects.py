"""A cluster in which cotenant is well, object by object, for tests of the command line and of `doctor`."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot, Seen
from cotenant_operator.doctor.install_checks import CRDS, KUBERAY_CRD, NEEDED_SECRETS
from cotenant_operator.kinds import BY_KIND

Object = dict[str, Any]
NOW_S = 1_800_000_000.0
NAMESPACE = "cotenant-system"


def at_second(ago_s: float) -> str:
    return datetime.fromtimestamp(NOW_S - ago_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def thing(kind: str, name: str, namespace: str = "", *, labels: dict[str, str] | None = None, **rest: Any) -> Object:
    metadata: Object = {
        "name": name,
        "labels": labels or {},
        "creationTimestamp": at_second(600),
        "uid": f"{kind}-{namespace}-{name}",
        "generation": 1,
    }
    if namespace:
        metadata["namespace"] = namespace
    version = {} if kind not in BY_KIND else {"apiVersion": BY_KIND[kind].api_version}
    return {**version, "kind": kind, "metadata": metadata, **rest}


def said(type: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": at_second(60)}


def crd(name: str, properties: Object | None = None) -> Object:
    schema = {"properties": {"spec": {"properties": properties or {}}}}
    spec = {"names": {"kind": name.split(".", maxsplit=1)[0]}, "versions": [{"schema": {"openAPIV3Schema": schema}}]}
    return thing("CustomResourceDefinition", name, spec=spec)


def deployment(name: str, namespace: str = NAMESPACE, *, ready: int = 1, image: str = "it:1", **rest: Any) -> Object:
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {"spec": {"containers": [{"name": "main", "image": image}]}},
    }
    return thing("Deployment", name, namespace, spec=spec, status={"readyReplicas": ready}, **rest)


def kuberay(version: str = "v1.6.1", ready: int = 1, name: str = "kuberay-operator") -> Object:
    """`name`: the label's value; its Helm chart and its kustomize folder have different ones."""
    labels = {"app.kubernetes.io/name": name}
    image = f"quay.io/kuberay/operator:{version}"
    return deployment("kuberay-operator", "kuberay-system", ready=ready, image=image, labels=labels)


def lease(ago_s: float = 2.0, holder: str = "cotenant-operator-abc") -> Object:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": at_second(ago_s)}
    return thing("Lease", "cotenant-operator", NAMESPACE, spec=spec)


def node(name: str, allocatable: dict[str, str] | None = None, **rest: Any) -> Object:
    labels = rest.pop("labels", {})
    return thing("Node", name, labels=labels, spec=rest, status={"allocatable": {"cpu": "8", **(allocatable or {})}})


def pool(*workers: Object, name: str = "default", ready: bool = True, status: Object | None = None) -> Object:
    conditions = [said("Ready", "True", "Ready", "1 of 1 group has pods")] if ready else []
    return thing(
        "GPUPool", name, spec={"workers": list(workers)}, status={"conditions": conditions, **(status or {})}
    )


def worker(name: str = "shared", **rest: Any) -> Object:
    return {"name": name, "device": "cuda", "memory": "80Gi", **rest}


def pod(name: str, **status: Any) -> Object:
    return thing("Pod", name, NAMESPACE, status={"phase": "Running", **status})


def waiting(reason: str, message: str = "", **rest: Any) -> Object:
    """`status` of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "containerStatuses": [{"name": "ray-worker", "image": "it:1", "state": state, **rest}],
    }


def refused(message: str, *, ago_s: float = 30.0, name: str = "e") -> Object:
    about = {"kind": "RayCluster", "name": "default-0a1b2c3d"}
    return thing("Event", name, NAMESPACE, involvedObject=about, message=message, lastTimestamp=at_second(ago_s))


def not_mounted(pod_name: str, message: str, *, ago_s: float = 30.0) -> Object:
    about = {"kind": "Pod", "name": pod_name}
    rest = {"reason": "FailedMount", "message": message, "lastTimestamp": at_second(ago_s)}
    return thing("Event", f"{pod_name}.{ago_s:.0f}", NAMESPACE, involvedObject=about, **rest)


WELL = ClusterSnapshot(
    context="here",
    server="https://k8s",
    version="v1.34.4",
    namespace=NAMESPACE,
    now_s=NOW_S,
    crds=Seen((*(crd(name) for name in CRDS), crd(KUBERAY_CRD, {"authOptions": {}}))),
    kuberay=Seen((kuberay(),)),
    deployments=Seen((deployment("cotenant-operator"), deployment("cotenant-gateway"))),
    pods=Seen((pod("cotenant-gateway-1"),)),
    leases=Seen((lease(),)),
    secrets=Seen(tuple(thing("Secret", name, NAMESPACE) for name in NEEDED_SECRETS)),
    nodes=Seen((node("node1", {"nvidia.com/gpu": "4"}),)),
    pools=Seen((pool(worker()),)),
)


def but(**changes: Seen | Object | list[Object]) -> ClusterSnapshot:
    """WELL, with these kinds changed."""
    seen = {
        name: value if isinstance(value, Seen) else Seen(tuple(value if isinstance(value, list) else [value]))
        for name, value in changes.items()
    }
    return replace(WELL, **seen)  # type: ignore[arg-type]
