"""What a look at a cluster has seen: objects as they stand there, nothing judged yet."""

from dataclasses import dataclass

from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import name_of


@dataclass(frozen=True, slots=True)
class Seen:
    """Objects of one kind, or why they could not be read."""

    items: tuple[Object, ...] = ()
    missing_right: str = ""
    """`list nodes in all namespaces`; empty when they were read."""
    absent: bool = False
    """The cluster does not know the kind."""

    def named(self, name: str) -> Object | None:
        return next((item for item in self.items if name_of(item) == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    context: str
    server: str
    """URL of the API server."""
    version: str
    """Of Kubernetes: `v1.34.4`."""
    namespace: str
    """In which cotenant is, or should be."""
    now_s: float
    crds: Seen = Seen()
    """Those of cotenant and of KubeRay."""
    wanted_crds: tuple[Object, ...] = ()
    """As this version of cotenant makes them."""
    kuberay: Seen = Seen()
    """Deployments of KubeRay's operator, in whatever namespace."""
    deployments: Seen = Seen()
    """In cotenant's namespace, as the rest down to `events`."""
    pods: Seen = Seen()
    leases: Seen = Seen()
    secrets: Seen = Seen()
    """Names and labels only."""
    events: Seen = Seen()
    nodes: Seen = Seen()
    pools: Seen = Seen()
