"""Snapshot of a cluster → findings: which prerequisite is missing, and the command that fixes it. Pure."""

from collections.abc import Callable, Iterator

from cotenant_operator.doctor import gpu_checks, install_checks, pod_checks
from cotenant_operator.doctor.checks import Finding
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot

_CHECKS: tuple[Callable[[ClusterSnapshot], Iterator[Finding]], ...] = (
    install_checks.kubernetes,
    install_checks.crds,
    install_checks.kuberay,
    install_checks.operator,
    install_checks.secrets,
    install_checks.gateway,
    install_checks.pools,
    gpu_checks.gpus,
    gpu_checks.sliced,
    pod_checks.pods,
    pod_checks.refusals,
)


def examine_cluster(seen: ClusterSnapshot) -> list[Finding]:
    """Every finding, in the order of `_CHECKS`."""
    return [finding for check in _CHECKS for finding in check(seen)]
