"""RayCluster → the NetworkPolicy that lets its pods reach each other. Pure.

A policy can name a label's value, not ask for the same one on both sides: so there is one for each RayCluster. Who
else may reach these pods stands in the policies of the chart.
"""

from typing import Any

from cotenant_operator.cluster_names import OURS, POOL_LABEL
from cotenant_operator.kinds import RAY_CLUSTERS
from cotenant_operator.operator_settings import OperatorSettings


def render_network_policy(pool: str, settings: OperatorSettings, name: str, *, uid: str = "") -> dict[str, Any]:
    """For RayCluster `name` of `pool`; `uid` is the RayCluster's, which then owns it."""
    members = {"matchLabels": {"ray.io/cluster": name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {POOL_LABEL: pool, **OURS},
            **({"ownerReferences": [RAY_CLUSTERS.owner(name, uid)]} if uid else {}),
        },
        "spec": {
            "podSelector": members,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": members}]}],
        },
    }
