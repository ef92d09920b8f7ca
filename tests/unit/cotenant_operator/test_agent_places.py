"""Agents of a pool are on each node where a pod of any of its worker groups may run, and on no other one."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from cotenant_operator.kube_objects import tolerated
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.cache_parts import render_agent
from cotenant_operator.spec import GPUPool

Json = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
GPU: Json = {"name": "gpu", "device": "cuda", "memory": "80Gi"}
CPU: Json = {"name": "cpu", "device": "cpu", "memory": "8Gi"}
CARD = {"key": "nvidia.com/gpu", "operator": "Exists"}


def places(*workers: Json) -> Json:
    pool = GPUPool.model_validate(
        {"metadata": {"name": "default"}, "spec": {"workers": workers, "cache": {"path": "/models"}}}
    )
    spec = render_agent(pool, OperatorSettings(), uid="u")["spec"]["template"]["spec"]
    return {name: spec[name] for name in ("nodeSelector", "tolerations", "affinity") if name in spec}


def terms(*workers: Json) -> list[Json]:
    found: list[Json] = places(*workers)["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return found


def wants(*own: Json) -> Json:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(own)}}}}


def has(key: str, *values: str) -> Json:
    return {"key": key, "operator": "In", "values": list(values)}


def comes_to(labels: Mapping[str, str], taints: list[Json], *workers: Json) -> bool:
    """As Kubernetes decides, for labels that are asked for with `In`."""
    given = places(*workers)
    if not all(tolerated(taint, given.get("tolerations", [])) for taint in taints):
        return False
    if "affinity" not in given:
        return True
    return any(
        all(labels.get(one["key"]) in one["values"] for one in term["matchExpressions"]) for term in terms(*workers)
    )


TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def test_agents_of_a_mixed_pool_come_to_its_tainted_gpu_nodes_and_to_no_stranger() -> None:
    gpu = {**GPU, "nodeSelector": {"kind": "gpu"}, "tolerations": [CARD]}
    cpu = {**CPU, "nodeSelector": {"kind": "cpu"}}
    for mixed in ((gpu, cpu), (cpu, gpu)):
        assert comes_to({"kind": "gpu"}, [TAINT], *mixed)
        assert comes_to({"kind": "cpu"}, [], *mixed)
        assert not comes_to({"kind": "db"}, [], *mixed)
        assert not comes_to({"kind": "gpu"}, [{**TAINT, "key": "reserved"}], *mixed)


def test_agents_tolerate_the_taint_of_each_device_that_groups_ask_for() -> None:
    slices = {
        "name": "mig",
        "device": "cuda",
        "resource": "nvidia.com/mig-1g.10gb",
        "sharing": "mig",
        "memory": "9Gi",
    }
    own = {"key": "team", "value": "search", "effect": "NoSchedule"}
    assert places(CPU) == {}
    assert places({**GPU, "tolerations": [own]}, slices, CPU)["tolerations"] == [
        own,
        CARD,
        {"key": "nvidia.com/mig-1g.10gb", "operator": "Exists"},
    ]
    assert places({**GPU, "tolerations": [CARD]})["tolerations"] == [CARD], "each once"


def test_an_agent_stays_on_a_node_that_a_worker_leaves_after_a_time() -> None:
    waits = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    assert places({**CPU, "tolerations": [{**waits, "tolerationSeconds": 30}]})["tolerations"] == [waits]


def test_a_group_that_may_be_anywhere_means_agents_everywhere() -> None:
    assert "affinity" not in places({**GPU, "nodeSelector": {"kind": "gpu"}}, CPU)
    assert "affinity" not in places(CPU)


def test_a_groups_labels_and_its_own_terms_hold_together() -> None:
    gpu = {**GPU, "nodeSelector": {"kind": "gpu", "arch": "amd64"}}
    gpu |= wants({"matchExpressions": [has("zone", "a")]}, {"matchFields": [has("metadata.name", "node-7")]})
    labels = [has("arch", "amd64"), has("kind", "gpu")]
    assert terms(gpu, {**CPU, "nodeSelector": {"kind": "cpu"}}) == [
        {"matchExpressions": [*labels, has("zone", "a")]},
        {"matchExpressions": labels, "matchFields": [has("metadata.name", "node-7")]},
        {"matchExpressions": [has("kind", "cpu")]},
    ]


def test_groups_that_are_alike_are_one_term_and_preferences_are_none() -> None:
    prefers = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    one = {**CPU, "nodeSelector": {"kind": "x"}, "affinity": {"nodeAffinity": prefers, "podAntiAffinity": {}}}
    assert terms(one, {**one, "name": "more"}) == [{"matchExpressions": [has("kind", "x")]}]


def test_what_a_pod_template_says_counts_as_in_the_pods() -> None:
    moved = {
        **GPU,
        "nodeSelector": {"kind": "gpu", "old": "yes"},
        "tolerations": [{"key": "old"}],
        "podTemplate": {
            "spec": {"nodeSelector": {"old": None, "disk": "fast"}, "tolerations": [{"key": "new"}], "priority": 1}
        },
    }
    assert terms(moved) == [{"matchExpressions": [has("disk", "fast"), has("kind", "gpu")]}]
    assert places(moved)["tolerations"] == [{"key": "new"}, CARD]


@pytest.mark.parametrize("nodes", list(itertools.product(("a", "b", None), repeat=2)))
def test_a_node_gets_an_agent_exactly_when_one_of_two_groups_may_be_there(
    nodes: tuple[str | None, str | None],
) -> None:
    workers = [
        {**CPU, "name": f"group-{place}", **({"nodeSelector": {"place": node}} if node else {})}
        for place, node in enumerate(nodes)
    ]
    for place in ("a", "b", "c"):
        assert comes_to({"place": place}, [], *workers) == (None in nodes or place in nodes)
