"""`cotenant doctor` on a cluster: what each lack is called, and the command that fixes it."""

from dataclasses import replace

import pytest
from tests.builders.cluster_objects import (
    WELL,
    but,
    crd,
    deployment,
    kuberay,
    lease,
    node,
    not_mounted,
    pod,
    pool,
    refused,
    said,
    waiting,
    worker,
)

from cotenant_operator.doctor.checks import Finding
from cotenant_operator.doctor.cluster_checks import examine_cluster
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot, Seen
from cotenant_operator.doctor.install_checks import CRDS, KUBERAY_CRD

OURS = [crd(name) for name in CRDS]
CARD = {"nvidia.com/gpu.count": "1", "nvidia.com/gpu.memory": "81920"}
QUOTA = 'pods "p" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 4, limited: 4'
SECURITY = 'pods "p" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes (volume "cache")'


def found(seen: ClusterSnapshot, check: str) -> Finding:
    (finding,) = [finding for finding in examine_cluster(seen) if finding.check == check]
    return finding


def test_a_cluster_that_has_everything_lacks_nothing() -> None:
    assert {finding.level for finding in examine_cluster(WELL)} == {"ok"}


@pytest.mark.parametrize(
    ("seen", "check", "level", "message", "fix"),
    [
        (replace(WELL, version="v1.27.3"), "kubernetes", "problem", "older than 1.29", "upgrade the cluster"),
        (but(crds=[crd(KUBERAY_CRD)]), "crds", "problem", "modeldeployments.cotenant.dev", "helm install cotenant"),
        (but(crds=OURS), "kuberay", "problem", "no kind RayCluster", "helm install kuberay-operator"),
        (but(kuberay=[]), "kuberay", "warning", "no Deployment", "helm install kuberay-operator"),
        (
            but(kuberay=kuberay("v1.5.0")),
            "kuberay",
            "problem",
            "is 1.5.0; cotenant needs 1.6",
            "helm upgrade kuberay",
        ),
        (but(kuberay=kuberay(ready=0)), "kuberay", "problem", "not ready", "-n kuberay-system describe pods"),
        (
            but(crds=[*OURS, crd(KUBERAY_CRD)]),
            "kuberay",
            "problem",
            "spec.authOptions",
            "kubectl apply --server-side",
        ),
        (but(deployments=[deployment("cotenant-gateway")]), "operator", "problem", "no Deployment", "helm upgrade"),
        (
            but(deployments=[deployment("cotenant-operator"), deployment("cotenant-gateway", ready=0)]),
            "gateway",
            "problem",
            "no request is answered",
            "describe pods -l app=cotenant-gateway",
        ),
        (but(leases=[]), "operator leader", "problem", "nobody holds", "logs deployment/cotenant-operator"),
        (but(leases=lease(90)), "operator leader", "problem", "renewed it 90 s ago", "logs deployment/"),
        (but(secrets=[]), "secrets", "problem", "cotenant-tokens", "logs deployment/cotenant-operator"),
        (but(pools=[]), "pools", "problem", "no GPUPool", "GPUPool"),
        (but(pools=pool(worker(), ready=False)), "pool default", "problem", "NotSeenYet", "describe gpupool default"),
        (but(nodes=Seen(missing_right="list nodes")), "gpus", "warning", "may not list nodes", "administrator"),
    ],
)
def test_each_lack_of_the_installation_names_the_command_that_fixes_it(
    seen: ClusterSnapshot, check: str, level: str, message: str, fix: str
) -> None:
    finding = found(seen, check)
    assert finding.level == level
    assert message in finding.message
    assert fix in finding.fix


def test_a_crd_that_lacks_a_field_of_this_version_is_older() -> None:
    wanted = crd(CRDS[2], {"head": {"properties": {"redis": {}}}, "workers": {"items": {"properties": {"name": {}}}}})
    here = crd(CRDS[2], {"head": {}, "workers": {"items": {"properties": {"name": {}}}}})
    seen = replace(but(crds=[*OURS[:2], here, crd(KUBERAY_CRD, {"authOptions": {}})]), wanted_crds=(wanted,))
    assert "gpupools.spec.head.redis" in found(seen, "crds").message
    assert found(replace(seen, wanted_crds=(here,)), "crds").level == "ok"


def test_a_pool_that_is_not_ready_is_told_by_its_first_condition_that_is_not_true() -> None:
    conditions = [said("Ready", "False", "NoHead"), said("KubeRayReady", "False", "KubeRayMissing", "no KubeRay")]
    finding = found(but(pools=pool(worker(), status={"conditions": conditions})), "pool default")
    assert finding.message == "KubeRayReady is False (KubeRayMissing): no KubeRay"


@pytest.mark.parametrize(
    ("group", "nodes", "level", "message", "fix"),
    [
        (worker(), [node("n", {"nvidia.com/gpu": "4"})], "ok", "4 x nvidia.com/gpu on 1 node(s)", ""),
        (worker(), [node("n")], "problem", "none has the label of a GPU node", "add a GPU node"),
        (
            worker(),
            [node("n", labels={"nvidia.com/gpu.present": "true"})],
            "problem",
            "n has GPUs: no device plugin",
            "helm upgrade --install nvidia-device-plugin",
        ),
        (
            worker(resource="nvidia.com/mig-1g.10gb", sharing="mig"),
            [node("n", {"nvidia.com/gpu": "1"})],
            "problem",
            "there is: nvidia.com/gpu",
            "kubectl label node n nvidia.com/mig.config=all-1g.10gb",
        ),
        (
            worker(resource="nvidia.com/gpu.shared"),
            [node("n", {"nvidia.com/gpu": "1"})],
            "problem",
            "there is: nvidia.com/gpu",
            "spec.workers[].resource",
        ),
        (
            worker(nodeSelector={"gpu": "h100"}),
            [node("n", {"nvidia.com/gpu": "1"})],
            "problem",
            "none has the labels of its nodeSelector: gpu=h100",
            "kubectl label node n gpu=h100",
        ),
        (
            worker(),
            [node("n", {"nvidia.com/gpu": "1"}, taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])],
            "problem",
            "taint gpu=yes:NoSchedule",
            "toleration",
        ),
        (
            worker(tolerations=[{"key": "gpu", "operator": "Exists"}]),
            [node("n", {"nvidia.com/gpu": "1"}, taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])],
            "ok",
            "1 x nvidia.com/gpu",
            "",
        ),
        (worker(), [node("n", {"nvidia.com/gpu": "1"}, unschedulable=True)], "problem", "cordoned", ""),
    ],
)
def test_a_group_says_whether_any_node_has_what_it_asks_for(
    group: dict[str, object], nodes: list[dict[str, object]], level: str, message: str, fix: str
) -> None:
    finding = found(but(pools=pool(group), nodes=nodes), "pool default: group shared")
    assert finding.level == level
    assert message in finding.message
    assert fix in finding.fix


def test_a_kind_that_nobody_has_is_only_a_warning_where_another_group_can_serve() -> None:
    groups = (worker(), {"name": "cpu", "device": "cpu", "memory": "8Gi"})
    assert found(but(pools=pool(*groups), nodes=[node("n")]), "pool default: group shared").level == "warning"


@pytest.mark.parametrize(
    ("labels", "units", "memory", "level", "fix"),
    [
        ({**CARD, "nvidia.com/gpu.replicas": "4"}, "4", "80Gi", "problem", "set memory of the group to 20Gi at most"),
        (CARD, "4", "80Gi", "problem", "set memory of the group to 20Gi at most"),
        (CARD, "4", "20Gi", "ok", ""),
        ({"nvidia.com/gpu.replicas": "4"}, "4", "80Gi", "warning", "a card's memory / 4"),
    ],
)
def test_a_plugin_that_advertises_a_card_several_times_over_is_told(
    labels: dict[str, str], units: str, memory: str, level: str, fix: str
) -> None:
    seen = but(pools=pool(worker(memory=memory)), nodes=[node("n", {"nvidia.com/gpu": units}, labels=labels)])
    finding = found(seen, "node n")
    assert finding.level == level
    assert "4 times" in finding.message
    assert fix in finding.fix


def test_a_card_that_is_advertised_once_is_not_worth_a_word() -> None:
    seen = but(nodes=[node("n", {"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "7"}, labels=CARD)])
    assert [finding for finding in examine_cluster(seen) if finding.check == "node n"] == []


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


@pytest.mark.parametrize(
    ("status", "message", "fix"),
    [
        (waiting("ImagePullBackOff", "not found"), "image it:1 cannot be pulled", "check name and tag"),
        (waiting("ErrImagePull", "401 Unauthorized"), "401 Unauthorized", "create secret docker-registry"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), 'secret "x" not found', "describe pod p"),
        (
            waiting("CrashLoopBackOff", restartCount=4, lastState={"terminated": {"reason": "Error", "exitCode": 1}}),
            "4 times; Error, exit code 1",
            "logs p -c ray-worker --previous",
        ),
        (
            waiting("CrashLoopBackOff", lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
            "OOMKilled",
            "more memory than its limit",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{**UNSCHEDULED, "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}],
            },
            "waits for a node for 600 s: 0/2 nodes",
            "nodes with nvidia.com/gpu",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{**UNSCHEDULED, "message": "1 node(s) had untolerated taint {a: b}"}],
            },
            "untolerated taint",
            "add the toleration",
        ),
    ],
)
def test_a_pod_that_is_held_up_says_why_and_what_helps(status: dict[str, object], message: str, fix: str) -> None:
    finding = found(but(pods=pod("p", **status)), "pod p")
    assert finding.level == "problem"
    assert message in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("said_by_server", "check", "fix"),
    [
        (QUOTA, "quota", "kubectl -n cotenant-system edit resourcequota gpus"),
        (SECURITY, "pod security", "pod-security.kubernetes.io/enforce=privileged"),
        ('pods "p" is forbidden: maximum cpu usage per Container is 1', "limit range", "describe limitrange"),
    ],
)
def test_pods_that_were_refused_name_the_rule(said_by_server: str, check: str, fix: str) -> None:
    finding = found(but(events=[refused(said_by_server), refused(said_by_server, ago_s=60)]), check)
    assert finding.message == f"RayCluster default-0a1b2c3d, 30 s ago: {said_by_server}"
    assert fix in finding.fix


def test_a_refusal_of_long_ago_is_settled() -> None:
    assert {finding.level for finding in examine_cluster(but(events=[refused(QUOTA, ago_s=3600)]))} == {"ok"}


def test_a_pod_that_waits_for_a_secret_is_not_taken_for_one_that_starts() -> None:
    said = 'MountVolume.SetUp failed for volume "hub-token" : secret "hub" not found'
    starting = pod("p", **waiting("ContainerCreating"))
    seen = but(pods=starting, events=not_mounted("p", said))
    assert found(seen, "pod p").message == f"waits for a volume, 30 s ago: {said}"
    assert "create secret generic hub" in found(seen, "pod p").fix
    assert "describe pod p" in found(but(pods=starting, events=not_mounted("p", "timed out")), "pod p").fix
    for nothing in ([], not_mounted("other", said), not_mounted("p", said, ago_s=7200)):
        assert found(but(pods=starting, events=nothing), "pods").level == "ok"
    assert found(but(pods=pod("p"), events=not_mounted("p", said)), "pods").level == "ok", "it runs by now"
