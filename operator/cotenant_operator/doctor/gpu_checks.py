"""Has any node what the pools' groups ask for? Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from cotenant_operator.doctor.checks import Finding
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot
from cotenant_operator.doctor.install_checks import not_seen
from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import at, items_at, labels_of, name_of, number_at, selects, tolerated
from cotenant_operator.quantity import MIB, as_quantity, show_bytes
from cotenant_operator.spec_pool import MIG_RESOURCE, Worker

_PLUGIN = (
    "helm upgrade --install nvidia-device-plugin nvidia-device-plugin "
    "--repo https://nvidia.github.io/k8s-device-plugin --namespace nvidia-device-plugin --create-namespace"
)
_GPU_LABELS = (
    "nvidia.com/gpu.present",
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/pci-0302_10de.present",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
)
_KEEPS_OUT = ("NoSchedule", "NoExecute")


def gpus(seen: ClusterSnapshot) -> Iterator[Finding]:
    """One finding for each group that asks for a resource."""
    if seen.nodes.missing_right:
        yield not_seen("gpus", seen.nodes)
        return
    for pool in seen.pools.items:
        workers = _workers(pool)
        for worker in workers:
            if worker.device_resource:
                yield _group(name_of(pool), worker, workers, seen.nodes.items)


def _group(pool: str, worker: Worker, workers: Sequence[Worker], nodes: Sequence[Object]) -> Finding:
    check, resource = f"pool {pool}: group {worker.name}", worker.device_resource
    having = [node for node in nodes if allocatable(node, resource)]
    if not having:
        others = [other for other in workers if other is not worker and _servable(other, nodes)]
        return Finding("warning" if others else "problem", check, *_nobody_has(resource, nodes))
    chosen = [node for node in having if selects(worker.node_selector, labels_of(node))]
    if not chosen:
        wanted = ", ".join(f"{name}={value}" for name, value in sorted(worker.node_selector.items()))
        text = f"{len(having)} node(s) have {resource}, but none has the labels of its nodeSelector: {wanted}"
        return Finding("problem", check, text, f"kubectl label node {name_of(having[0])} {wanted.replace(', ', ' ')}")
    open_nodes = [node for node in chosen if not _closed_by(node, worker)]
    if not open_nodes:
        node, taint = chosen[0], _closed_by(chosen[0], worker)
        text = f"every node with {resource} is closed: {name_of(node)} has {taint}"
        fix = f"add a toleration for it to spec.workers of the GPUPool: kubectl edit gpupool {pool}"
        return Finding("problem", check, text, fix)
    units = sum(allocatable(node, resource) for node in open_nodes)
    return Finding("ok", check, f"{units} x {resource} on {len(open_nodes)} node(s)")


def _servable(worker: Worker, nodes: Sequence[Object]) -> bool:
    resource = worker.device_resource
    return not resource or any(
        allocatable(node, resource)
        and selects(worker.node_selector, labels_of(node))
        and not _closed_by(node, worker)
        for node in nodes
    )


def _nobody_has(resource: str, nodes: Sequence[Object]) -> tuple[str, str]:
    """What is wrong, and what to do."""
    known = sorted({name for node in nodes for name in _gpu_resources(node)})
    labelled = [name_of(node) for node in nodes if any(label in labels_of(node) for label in _GPU_LABELS)]
    if resource.startswith(MIG_RESOURCE) and known:
        profile = resource.removeprefix(MIG_RESOURCE)
        node = next(name_of(node) for node in nodes if _gpu_resources(node))
        text = f"no node advertises {resource}; there is: {', '.join(known)}"
        fix = (
            f"cut a GPU of a node into slices of {profile} (with the GPU operator: kubectl label node {node} "
            f"nvidia.com/mig.config=all-{profile} --overwrite), or name what there is in spec.workers of the GPUPool"
        )
        return text, fix
    if known:
        text = f"no node advertises {resource}; there is: {', '.join(known)}"
        return text, "name what there is in spec.workers[].resource of the GPUPool, or add a node that has it"
    if labelled:
        text = (
            f"no node advertises {resource}, though {', '.join(labelled[:3])} has GPUs: no device plugin runs there"
        )
        return text, _PLUGIN
    text = f"no node advertises {resource}, and none has the label of a GPU node"
    return text, f"add a GPU node; on nodes that have GPUs install driver and device plugin: {_PLUGIN}"


def sliced(seen: ClusterSnapshot) -> Iterator[Finding]:
    """Device plugins that advertise a card several times over: `memory` must then be a slice's part."""
    for node in seen.nodes.items:
        for resource in _gpu_resources(node):
            if resource.startswith(MIG_RESOURCE):
                continue
            replicas = _replicas(node, resource)
            if replicas > 1:
                yield _sliced_node(node, resource, replicas, seen)


def _sliced_node(node: Object, resource: str, replicas: int, seen: ClusterSnapshot) -> Finding:
    check, labels = f"node {name_of(node)}", labels_of(node)
    card_bytes = _label(node, "nvidia.com/gpu.memory") * MIB
    strategy = labels.get("nvidia.com/gpu.sharing-strategy", "")
    text = f"its device plugin advertises each card {replicas} times as {resource}" + (
        f" ({strategy})" if strategy not in ("", "none") else ""
    )
    greedy = [
        (pool, worker)
        for pool in seen.pools.items
        for worker in _workers(pool)
        if worker.device_resource == resource and (not card_bytes or worker.memory * replicas > card_bytes)
        if selects(worker.node_selector, labels)
    ]
    if not greedy:
        return Finding("ok", check, text)
    pool, worker = greedy[0]
    text += f", so {replicas} pods of group {worker.name} of pool {name_of(pool)} may share one card"
    if not card_bytes:
        part = f"a card's memory / {replicas}"
        fix = f"set memory of the group to {part} (kubectl edit gpupool {name_of(pool)}), or {_ONCE}"
        return Finding("warning", check, f"{text}; nobody tells how much memory it has", fix)
    text += f": {replicas} x {show_bytes(worker.memory)} is more than its {show_bytes(card_bytes)}"
    part = as_quantity(card_bytes // replicas // MIB * MIB)
    fix = f"set memory of the group to {part} at most (kubectl edit gpupool {name_of(pool)}), or {_ONCE}"
    return Finding("problem", check, text, fix)


_ONCE = "have the plugin advertise each card once (no sharing.timeSlicing): cotenant shares it among models itself"


def _replicas(node: Object, resource: str) -> int:
    """How often a card is advertised, from the labels of gpu-feature-discovery; 1 when nothing says more."""
    cards, said = _label(node, "nvidia.com/gpu.count"), _label(node, "nvidia.com/gpu.replicas")
    counted = allocatable(node, resource) // cards if cards else 1
    return max(1, said, counted)


def _label(node: Object, name: str) -> int:
    """A label that is a number; 0 without it."""
    return number_at(node, "metadata", "labels", name)


def allocatable(node: Object, resource: str) -> int:
    return number_at(node, "status", "allocatable", resource)


def _gpu_resources(node: Object) -> list[str]:
    """Resources of cards that a device plugin advertises on a node."""
    found: dict[str, Any] = at(node, "status", "allocatable") or {}
    return sorted(
        name
        for name in found
        if name.partition("/")[0].endswith(("nvidia.com", "amd.com", "intel.com")) and allocatable(node, name)
    )


def _closed_by(node: Object, worker: Worker) -> str:
    """The first taint, or cordon, that keeps the group's pods away; empty when there is none."""
    if at(node, "spec", "unschedulable"):
        return "been cordoned (kubectl uncordon)"
    # Kubernetes itself tolerates the taint that is named after an extended resource (ExtendedResourceToleration),
    # but only where that admission plugin is on: it is not counted on.
    for taint in items_at(node, "spec", "taints"):
        if taint.get("effect") in _KEEPS_OUT and not tolerated(taint, worker.tolerations):
            return f"the taint {taint.get('key')}={taint.get('value') or ''}:{taint.get('effect')}"
    return ""


def _workers(pool: Object) -> list[Worker]:
    """Those that this version can read; the API server has refused the others, or the CRD check says it is older."""
    found = []
    for item in items_at(pool, "spec", "workers"):
        try:
            found.append(Worker.model_validate(item, by_alias=True, by_name=False))
        except ValidationError:
            continue
    return found
