"""The kinds of Kubernetes objects that cotenant touches, and where the API server has them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as plain JSON."""
Key = tuple[str, str]
"""(namespace, or "" for the cluster's own; name)"""


@dataclass(frozen=True, slots=True)
class Kind:
    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Below the API server's root. Without a namespace: all namespaces."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(part for part in (f"{root}{middle}", self.plural, name, subresource) if part)

    def new(self, name: str, namespace: str = "", **rest: Any) -> Object:
        """A minimal object: `rest` stands beside its metadata."""
        metadata = {"name": name} | ({"namespace": namespace} if self.namespaced else {})
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **rest}

    def owner(self, name: str, uid: str) -> Object:
        """A reference to the object that another one goes with."""
        return {"apiVersion": self.api_version, "kind": self.kind, "name": name, "uid": uid, "controller": True}


MODELS = Kind("cotenant.dev/v1alpha1", "ModelDeployment", "modeldeployments")
TENANTS = Kind("cotenant.dev/v1alpha1", "Tenant", "tenants", namespaced=False)
POOLS = Kind("cotenant.dev/v1alpha1", "GPUPool", "gpupools", namespaced=False)
RAY_CLUSTERS = Kind("ray.io/v1", "RayCluster", "rayclusters")
SECRETS = Kind("v1", "Secret", "secrets")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
SERVICES = Kind("v1", "Service", "services")
DAEMON_SETS = Kind("apps/v1", "DaemonSet", "daemonsets")
PODS = Kind("v1", "Pod", "pods")
NODES = Kind("v1", "Node", "nodes", namespaced=False)
ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASES = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENTS = Kind("events.k8s.io/v1", "Event", "events")
CORE_EVENTS = Kind("v1", "Event", "events")
"""The same Events as `EVENTS`, with fields of old."""

BY_KIND: Mapping[str, Kind] = {
    kind.kind: kind
    for kind in (
        MODELS,
        TENANTS,
        POOLS,
        RAY_CLUSTERS,
        SECRETS,
        CONFIG_MAPS,
        SERVICES,
        DAEMON_SETS,
        PODS,
        NODES,
        ENDPOINT_SLICES,
        NETWORK_POLICIES,
        LEASES,
        EVENTS,
    )
}


def key_of(item: Object) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
