"""Every kind that the operator watches, and whom a change of it concerns."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from cotenant_operator.cluster_names import MANAGER, MANAGER_LABEL, POOL_LABEL
from cotenant_operator.kinds import (
    CONFIG_MAPS,
    DAEMON_SETS,
    ENDPOINT_SLICES,
    MODELS,
    NETWORK_POLICIES,
    NODES,
    PODS,
    POOLS,
    RAY_CLUSTERS,
    SERVICES,
    TENANTS,
    Kind,
    Object,
)
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.pool_world import node_resources, pool_of
from cotenant_operator.watching import Changed, Kept, Source, Watched

DEFAULT_POOL = "default"


class Concerned(Protocol):
    """Who hears of changes."""

    def pool_changed(self, name: str) -> None: ...

    def plan_changed(self) -> None: ...

    def every_pool_changed(self) -> None: ...

    def gateways_changed(self) -> None: ...


class Caches:
    """Read the objects of each; nothing else changes them."""

    def __init__(self, source: Source, settings: OperatorSettings, concerned: Callable[[], Concerned]) -> None:
        self._concerned = concerned
        namespace, ours = settings.namespace, f"{MANAGER_LABEL}={MANAGER}"
        watched = partial(_watched, source, settings.timeouts.watch_silence)
        self.models = watched(MODELS, changed=self._model)
        self.tenants = watched(TENANTS, changed=self._tenant)
        self.pools = watched(POOLS, changed=self._pool)
        self.ray_clusters = watched(RAY_CLUSTERS, namespace, labels=ours, changed=self._of_pool)
        self.services = watched(SERVICES, namespace, labels=ours, changed=self._of_pool)
        self.policies = watched(NETWORK_POLICIES, namespace, labels=ours, changed=self._of_pool)
        self.config_maps = watched(CONFIG_MAPS, namespace, labels=f"{ours},{POOL_LABEL}", changed=self._of_pool)
        self.agents = watched(DAEMON_SETS, namespace, labels=f"{ours},{POOL_LABEL}", changed=self._of_pool)
        self.pods = watched(PODS, namespace, labels=POOL_LABEL, changed=self._of_pool, kept=_pod_kept)
        self.endpoint_slices = watched(
            ENDPOINT_SLICES,
            namespace,
            labels=f"kubernetes.io/service-name={settings.gateway_service}",
            changed=lambda before, now: self._concerned().gateways_changed(),
        )
        self.nodes = watched(NODES, changed=self._node, kept=_node_kept)
        self._resources: dict[str, int] = {}

    @property
    def all(self) -> tuple[Watched, ...]:
        return (
            self.models,
            self.tenants,
            self.pools,
            self.ray_clusters,
            self.services,
            self.policies,
            self.config_maps,
            self.agents,
            self.pods,
            self.endpoint_slices,
            self.nodes,
        )

    @property
    def missing(self) -> list[str]:
        """What is not known yet, or not installed, and why. Nodes are read for better messages only."""
        found = []
        for watched in self.all:
            if watched is self.nodes:
                continue
            if watched.absent and watched is not self.ray_clusters:
                found.append(f"{watched.kind.plural}: not installed; apply cotenant's CRDs")
            elif not watched.synced:
                found.append(f"{watched.kind.plural}: {watched.problem or 'not read yet'}")
        return found

    def of(self, kind: Kind) -> Watched:
        """Raises StopIteration."""
        return next(watched for watched in self.all if watched.kind is kind)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for watched in self.all:
                tasks.create_task(watched.run(), name=f"watch {watched.kind.plural}")

    def _model(self, before: Object | None, now: Object | None) -> None:
        if not _significant(before, now):
            return
        concerned = self._concerned()
        if not _same_spec(before, now):
            concerned.plan_changed()
        for item in (before, now):
            if item is not None:
                concerned.pool_changed(pool_named(item))

    def _tenant(self, before: Object | None, now: Object | None) -> None:
        if _significant(before, now):
            self._concerned().plan_changed()

    def _pool(self, before: Object | None, now: Object | None) -> None:
        if _significant(before, now):
            if not _same_spec(before, now):
                self._concerned().plan_changed()
            self._concerned().pool_changed(((now or before) or {})["metadata"]["name"])

    def _of_pool(self, before: Object | None, now: Object | None) -> None:
        for item in (before, now):
            if item is not None and (name := pool_of(item)):
                self._concerned().pool_changed(name)

    def _node(self, before: Object | None, now: Object | None) -> None:
        resources = node_resources(self.nodes.objects.values())
        if resources != self._resources:
            self._resources = resources
            self._concerned().every_pool_changed()


def pool_named(model: Object) -> str:
    """The pool that a ModelDeployment names, readable or not."""
    name = (model.get("spec") or {}).get("pool")
    return name if isinstance(name, str) else DEFAULT_POOL


def _watched(
    source: Source,
    silence_s: float,
    kind: Kind,
    namespace: str = "",
    *,
    labels: str = "",
    changed: Changed,
    kept: Kept = lambda item: item,
) -> Watched:
    return Watched(source, kind, namespace, labels=labels, changed=changed, kept=kept, silence_s=silence_s)


def _same_spec(before: Object | None, now: Object | None) -> bool:
    return before is not None and now is not None and _print(before) == _print(now)


def _print(item: Object) -> tuple[Any, ...]:
    metadata = item["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp")


def _significant(before: Object | None, now: Object | None) -> bool:
    """Our own status coming back is no news; a status that somebody else changed is."""
    return not _same_spec(before, now) or (before or {}).get("status") != (now or {}).get("status")


def _pod_kept(pod: Object) -> Object:
    metadata, status = pod["metadata"], pod.get("status") or {}
    names = ("name", "namespace", "uid", "resourceVersion", "labels", "deletionTimestamp", "creationTimestamp")
    fields = ("phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses")
    return {
        "metadata": {name: metadata[name] for name in names if name in metadata},
        "spec": {"nodeName": (pod.get("spec") or {}).get("nodeName")},
        "status": {name: status[name] for name in fields if name in status},
    }


def _node_kept(node: Object) -> Object:
    metadata, status = node["metadata"], node.get("status") or {}
    ready = [item for item in status.get("conditions") or () if item.get("type") == "Ready"]
    return {
        "metadata": {name: metadata[name] for name in ("name", "uid", "resourceVersion")},
        "status": {"allocatable": status.get("allocatable") or {}, "conditions": ready},
    }
