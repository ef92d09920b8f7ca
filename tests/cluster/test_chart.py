"""The chart on a real API server: every render is accepted, rights are enough and no more, nothing stays stuck."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.builders.chart import Object, pod_specs, rendered
from tests.builders.kube import Kube
from tests.builders.release import NAME, PROGRAMS, Release
from tests.golden_chart.situations import FOLDER, situations

from cotenant_operator.doctor.install_checks import CRDS

NOT_EVERYWHERE = {"ServiceMonitor", "HTTPRoute"}
"""Kinds that a cluster may not have."""
EDITOR = "ada"
READY_S = 300.0


@pytest.fixture(scope="module")
def installed(release: Release) -> Release:
    """Its namespace enforces pod security `restricted`."""
    release.install()
    return release


def test_operator_and_gateways_start_and_none_starts_again(installed: Release, kube: Kube) -> None:
    def ready() -> bool:
        return all(
            kube.get("Deployment", name, installed.namespace).get("status", {}).get("readyReplicas", 0) == 2
            for name in PROGRAMS
        )

    kube.until(ready, "operator and gateways are ready", limit_s=READY_S)
    for pod in installed.pods("app.kubernetes.io/instance=cotenant"):
        assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]


@pytest.mark.parametrize("situation", situations())
def test_the_api_server_takes_every_object_and_every_pod(installed: Release, kube: Kube, situation: str) -> None:
    values = ("--values", str(FOLDER / situation / "values.yaml"))
    objects = rendered(*values, release=NAME, namespace=installed.namespace)
    for item in objects:
        if item["kind"] in NOT_EVERYWHERE and not known(kube, item["kind"]):
            continue
        kube.apply(new(item), dry_run=True)
    for name, spec in pod_specs(objects):
        accounts = {"cotenant-operator", "cotenant-gateway", "default"}
        if spec.get("serviceAccountName", "default") not in accounts:
            continue  # one that someone else makes
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"try-pod-{name}", "namespace": installed.namespace},
            "spec": {key: value for key, value in spec.items() if key != "priorityClassName"},
        }
        kube.apply(pod, dry_run=True)


def new(item: Object) -> Object:
    """Under another name: an apply beside helm's would be merged with what helm has made."""
    name = item["metadata"]["name"]
    if item["kind"] == "CustomResourceDefinition":
        return item  # its name says what it defines
    return {**item, "metadata": {**item["metadata"], "name": f"try-{name}"}}


def known(kube: Kube, kind: str) -> bool:
    return any(item["spec"]["names"]["kind"] == kind for item in kube.objects("CustomResourceDefinition"))


def test_a_helm_test_asks_a_model_and_takes_everything_of_it_away(installed: Release, kube: Kube) -> None:
    said = installed.helm("test", NAME, "--timeout", "15m", check=False)
    assert "Phase:          Succeeded" in said, f"{said}\n{kube.story()}"
    for kind in ("Secret", "Tenant", "ModelDeployment", "Pod"):
        kube.gone(kind, "cotenant-helm-test", "" if kind == "Tenant" else installed.namespace)


def test_the_operators_rights_are_enough(installed: Release, kube: Kube) -> None:
    """No call was refused, in all that it has done so far."""
    operators = installed.pods("app.kubernetes.io/component=operator")
    assert operators
    for pod in operators:
        name = f"{pod['metadata']['name']}:8600"
        text = kube.call("GET", kube.path("Pod", name, installed.namespace, part="proxy/metrics"))["text"]
        calls = [line for line in text.splitlines() if line.startswith("cotenant_operator_api_calls_total{")]
        assert calls
        assert not [line for line in calls if 'code="403"' in line]


def may(kube: Kube, user: str, verb: str, resource: str, where: str = "", group: str = "cotenant.dev") -> bool:
    attributes: dict[str, Any] = {"verb": verb, "group": group, "resource": resource, "namespace": where}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    return bool(kube.call("POST", kube.path("SubjectAccessReview"), review)["status"]["allowed"])


def test_the_operator_may_not_do_what_it_does_not_need(installed: Release, kube: Kube) -> None:
    operator = f"system:serviceaccount:{installed.namespace}:cotenant-operator"
    assert may(kube, operator, "get", "secrets", installed.namespace, group="")
    assert not may(kube, operator, "get", "secrets", "kube-system", group="")
    assert not may(kube, operator, "list", "secrets", installed.namespace, group="")
    assert not may(kube, operator, "delete", "secrets", installed.namespace, group="")
    assert not may(kube, operator, "create", "pods", installed.namespace, group="")
    assert not may(kube, operator, "delete", "modeldeployments", "default")
    assert not may(kube, operator, "patch", "nodes", group="")
    gateway = f"system:serviceaccount:{installed.namespace}:cotenant-gateway"
    assert not may(kube, gateway, "get", "secrets", installed.namespace, group="")


def test_editors_of_a_namespace_manage_its_models_and_nobody_elses(
    installed: Release, kube: Kube, namespaces: Callable[[str], str]
) -> None:
    own, other = namespaces("chart-own"), namespaces("chart-other")
    subject = {"kind": "User", "name": EDITOR, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"}
    kube.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "editors", "namespace": own},
            "roleRef": role,
            "subjects": [subject],
        }
    )
    kube.until(lambda: may(kube, EDITOR, "create", "modeldeployments", own), "editors may write models")
    assert may(kube, EDITOR, "delete", "modeldeployments", own)
    assert not may(kube, EDITOR, "create", "modeldeployments", other)
    assert not may(kube, EDITOR, "get", "modeldeployments", other)
    assert not may(kube, EDITOR, "create", "tenants")
    assert not may(kube, EDITOR, "create", "gpupools")


def test_an_upgrade_with_the_same_values_replaces_no_pod(installed: Release, kube: Kube) -> None:
    before = generations(installed, kube)
    installed.install()
    assert generations(installed, kube) == before


def generations(installed: Release, kube: Kube) -> list[int]:
    """They change when the spec does."""
    return [kube.get("Deployment", name, installed.namespace)["metadata"]["generation"] for name in PROGRAMS]


def test_an_uninstall_leaves_data_and_nothing_stuck_and_an_install_takes_it_over(
    installed: Release, kube: Kube
) -> None:
    token = kube.get("Secret", "cotenant-tokens", installed.namespace)["data"]
    pool = kube.get("GPUPool", "default")["metadata"]["uid"]

    said = installed.helm("uninstall", NAME, "--wait=false")

    assert "kept due to the resource policy" in said
    kube.until(
        lambda: not kube.objects("Deployment", installed.namespace, "app.kubernetes.io/instance=cotenant"),
        "operator and gateways are gone",
    )
    assert [kube.find("CustomResourceDefinition", name) is not None for name in CRDS] == [True] * 3
    assert kube.get("Secret", "cotenant-tokens", installed.namespace)["data"] == token
    assert not kube.get("GPUPool", "default")["metadata"].get("finalizers"), "nobody is there to take them off"
    installed.install()
    assert kube.get("Secret", "cotenant-tokens", installed.namespace)["data"] == token
    assert kube.get("GPUPool", "default")["metadata"]["uid"] == pool
