"""The Helm chart, as helm renders it: golden objects, what holds for every pod, and what is refused."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.chart import Object, notes, one, pod_specs, rendered
from tests.golden_chart.situations import CHART, DEFAULT, FOLDER, NO_HELM, HelmError, has_helm, render, situations

from cotenant_operator.operator_settings import OperatorSettings, read_settings

pytestmark = pytest.mark.skipif(not has_helm(), reason=NO_HELM)

DOCS = CHART.parents[1] / "docs"
STANDARD = ("name", "instance", "version", "part-of", "managed-by")


def values_of(situation: str) -> tuple[str, str]:
    return "--values", str(FOLDER / situation / "values.yaml")


@pytest.fixture(scope="module")
def default() -> list[Object]:
    return rendered()


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return render()


@pytest.mark.parametrize("situation", situations())
def test_the_chart_renders_what_the_golden_folder_shows(situation: str, golden: dict[str, str]) -> None:
    """`make generate` renders it anew; read the diff."""
    assert golden[situation] == (FOLDER / situation / "objects.yaml").read_text()


@pytest.mark.parametrize("situation", situations())
def test_helm_lint_has_nothing_to_say(situation: str) -> None:
    command = ["helm", "lint", "--strict", "--kube-version", "1.34.0", *values_of(situation), str(CHART)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert not re.search(r"\[(WARNING|ERROR)\]", result.stdout), result.stdout


@pytest.mark.parametrize("situation", situations())
def test_every_pod_is_restricted_and_cannot_write_its_root(situation: str) -> None:
    for name, spec in pod_specs(rendered(*values_of(situation))):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 1000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("situation", situations())
def test_the_operator_understands_its_settings(situation: str, tmp_path: Path) -> None:
    settings = settings_of(rendered(*values_of(situation)), tmp_path)
    assert settings.namespace == "cotenant-system"
    assert settings.gateway_service == "cotenant-gateway"


def settings_of(objects: list[Object], folder: Path) -> OperatorSettings:
    file = folder / "operator.yaml"
    file.write_text(one(objects, "ConfigMap", "cotenant-operator")["data"]["operator.yaml"])
    return read_settings(file)


def test_the_chart_and_the_operator_have_the_same_defaults(default: list[Object], tmp_path: Path) -> None:
    assert settings_of(default, tmp_path) == OperatorSettings()


def test_values_arrive_in_the_operators_settings(tmp_path: Path) -> None:
    settings = settings_of(rendered(*values_of("own-images")), tmp_path)
    assert settings.image.name.startswith("registry.example.com/ml/cotenant-serving@sha256:")
    assert settings.image.pull_policy == "Always"
    assert settings.image.pull_secrets == ("registry",)
    assert [item["name"] for item in settings.extra_env] == ["HTTPS_PROXY", "SSL_CERT_FILE"]
    assert [item["name"] for item in settings.extra_volumes] == ["site-ca", "models"]
    assert [item["mountPath"] for item in settings.extra_volume_mounts] == ["/etc/site", "/models"]
    settings = settings_of(rendered(*values_of("scheduled")), tmp_path)
    assert (settings.ray.idle_timeout, settings.timeouts.roll_drain) == (300, 3600)
    assert settings.default_pool.memory == 16 * 2**30
    assert settings.resources.worker.requests == {"cpu": "2", "memory": "4Gi"}


def test_the_operator_makes_policies_where_the_chart_does(default: list[Object], tmp_path: Path) -> None:
    assert settings_of(default, tmp_path).network_policies
    assert not settings_of(rendered(*values_of("open-network")), tmp_path).network_policies


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ((), "http://cotenant-gateway.cotenant-system.svc"),
        (("--set", "gateway.service.port=8080"), "http://cotenant-gateway.cotenant-system.svc:8080"),
        (values_of("autoscaled-ingress"), "https://models.example.com"),
        (
            ("--set", "gateway.ingress.enabled=true,gateway.ingress.host=models.example.com"),
            "http://models.example.com",
        ),
        (values_of("http-route"), "https://models.example.com"),
        (("--set", "gateway.url=https://ai.example.com/"), "https://ai.example.com"),
    ],
)
def test_models_show_the_url_that_users_call(arguments: tuple[str, ...], url: str, tmp_path: Path) -> None:
    assert settings_of(rendered(*arguments), tmp_path).url == url


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ((), "http://127.0.0.1:8080/v1"),
        (("--set", "gateway.service.port=8000"), "service/cotenant-gateway 8080:8000"),
        (values_of("autoscaled-ingress"), "https://models.example.com/v1"),
        (("--set", "gateway.url=https://ai.example.com/"), "https://ai.example.com/v1"),
    ],
)
def test_the_notes_say_what_is_called_from_outside_and_where_the_key_is(
    arguments: tuple[str, ...], called: str, tmp_path: Path
) -> None:
    said = notes(tmp_path, *arguments)
    assert called in said
    assert ".svc" not in said, "nobody outside the cluster knows that name"
    assert "kubectl get secret first-key -n cotenant-system -o jsonpath='{.data.token}' | base64 -d" in said


def test_the_notes_say_that_prometheus_is_kept_out(tmp_path: Path) -> None:
    assert "metricsFrom" not in notes(tmp_path / "observed", *values_of("observed"))
    assert "metricsFrom names nobody" in notes(tmp_path / "shut", "--set", "metrics.serviceMonitor.enabled=true")


def test_a_change_of_settings_replaces_the_operators_pods(default: list[Object]) -> None:
    changed = rendered("--set", "pools.idleTimeout=5m")
    assert checksum(changed) != checksum(default)
    assert checksum(rendered("--set", "gateway.replicas=7")) == checksum(default)


def checksum(objects: list[Object]) -> str:
    template = one(objects, "Deployment", "cotenant-operator")["spec"]["template"]
    return str(template["metadata"]["annotations"]["checksum/settings"])


def test_a_gateway_that_ends_has_longer_than_its_longest_request() -> None:
    objects = rendered("--set", "gateway.requestTimeoutSeconds=1800,gateway.preStopSeconds=20")
    spec = one(objects, "Deployment", "cotenant-gateway")["spec"]["template"]["spec"]
    arguments = dict(item.split("=", 1) for item in spec["containers"][0]["args"])
    assert arguments["--drain-timeout"] == arguments["--request-timeout"] == "1800"
    assert spec["terminationGracePeriodSeconds"] > 1800 + 20 + 15


def test_the_longest_request_of_gateways_is_that_of_pools(tmp_path: Path) -> None:
    settings = settings_of(rendered("--set", "gateway.requestTimeoutSeconds=86400"), tmp_path)
    assert settings.request_timeout == 86400
    assert settings.roll_drain_s > 86400 > settings.timeouts.roll_drain
    shorter = settings_of(rendered("--set", "gateway.requestTimeoutSeconds=120"), tmp_path)
    assert shorter.roll_drain_s == shorter.timeouts.roll_drain == 900


def test_the_gateway_understands_its_arguments(default: list[Object]) -> None:
    from cotenant_serving.gateway.options import parse_options

    (container,) = one(default, "Deployment", "cotenant-gateway")["spec"]["template"]["spec"]["containers"]
    options = parse_options([item.replace("$(POD_NAME)", "gateway-1") for item in container["args"]])
    assert (options.host, options.port, options.workers) == ("0.0.0.0", 8080, 1)
    assert options.settings.drain_timeout_s == options.settings.request_timeout_s
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(options.config.parent), str(options.state)} <= mounts


def test_a_gateway_waits_for_its_token_and_starts_without_a_boot_copy(default: list[Object]) -> None:
    spec = one(default, "Deployment", "cotenant-gateway")["spec"]["template"]["spec"]
    secrets = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    assert secrets["boot"]["optional"] is True
    assert "optional" not in secrets["tokens"]
    assert secrets["tokens"]["items"] == [{"key": "pool-token", "path": "pool-token"}], "and has no control token"
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("situation", situations())
def test_no_budget_keeps_a_node_from_being_drained(situation: str) -> None:
    for item in rendered(*values_of(situation)):
        if item["kind"] == "PodDisruptionBudget":
            assert item["spec"]["maxUnavailable"] not in (0, "0%"), item["metadata"]["name"]
            assert item["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "pods that are not ready hold up none"


@pytest.mark.parametrize("situation", situations())
def test_every_object_has_the_standard_labels(situation: str) -> None:
    for item in rendered(*values_of(situation)):
        labels = item["metadata"]["labels"]
        assert {f"app.kubernetes.io/{name}" for name in STANDARD} <= labels.keys(), item["metadata"]["name"]
        assert labels["helm.sh/chart"].startswith("cotenant-")


def test_labels_of_ones_own_are_on_every_object_and_pod() -> None:
    for item in rendered("--set", "commonLabels.team=ml"):
        assert item["metadata"]["labels"]["team"] == "ml", item["metadata"]["name"]
        if item["kind"] == "Deployment":
            assert item["spec"]["template"]["metadata"]["labels"]["team"] == "ml"


def test_a_new_version_that_changes_no_pod_replaces_none(default: list[Object]) -> None:
    for item in default:
        if item["kind"] == "Deployment":
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_release_and_namespace_may_have_any_name(default: list[Object]) -> None:
    other = rendered(release="ml-7", namespace="models")
    assert [(item["kind"], item["metadata"]["name"]) for item in other] == [
        (item["kind"], item["metadata"]["name"]) for item in default
    ]
    assert {item["metadata"]["namespace"] for item in other if "namespace" in item["metadata"]} == {"models"}
    text = yaml.safe_dump_all(other)
    assert "cotenant-system" not in text


def test_extra_variables_and_volumes_are_in_every_container() -> None:
    for name, spec in pod_specs(rendered(*values_of("own-images"))):
        assert {"site-ca", "models"} <= {volume["name"] for volume in spec["volumes"]}, name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        for container in spec["containers"]:
            assert {"HTTPS_PROXY", "SSL_CERT_FILE"} <= {item["name"] for item in container["env"]}, name
            assert {"/etc/site", "/models"} <= {mount["mountPath"] for mount in container["volumeMounts"]}, name
            assert container["image"].startswith("registry.example.com/ml/cotenant-"), name


def test_nothing_of_the_chart_is_made_in_another_namespace_or_left_out_of_any(default: list[Object]) -> None:
    of_the_cluster = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Tenant"}
    for item in default:
        namespace = item["metadata"].get("namespace")
        assert namespace == (None if item["kind"] in of_the_cluster else "cotenant-system"), item["metadata"]["name"]


def test_the_chart_has_no_secret_but_the_one_of_its_test(default: list[Object]) -> None:
    assert [item["metadata"]["name"] for item in default if item["kind"] == "Secret"] == ["cotenant-helm-test"]
    hooks = one(default, "Secret", "cotenant-helm-test")["metadata"]["annotations"]
    assert hooks["helm.sh/hook"] == "test"
    assert "hook-succeeded" in hooks["helm.sh/hook-delete-policy"]


def test_crds_are_upgraded_with_the_chart_and_stay_after_it(default: list[Object]) -> None:
    files = {path: yaml.safe_load(path.read_text()) for path in sorted((CHART / "files" / "crds").glob("*.yaml"))}
    found = {item["metadata"]["name"]: item for item in default if item["kind"] == "CustomResourceDefinition"}
    assert {crd["metadata"]["name"] for crd in files.values()} == found.keys()
    for crd in files.values():
        item = found[crd["metadata"]["name"]]
        assert item["spec"] == crd["spec"], "the template changes nothing of it"
        assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    without = rendered("--set", "crds.install=false")
    assert not [item for item in without if item["kind"] == "CustomResourceDefinition"]


REFUSALS = [
    ("gateway.replica=3", ["/gateway", "'replica' not allowed", "'replicas'"]),
    ("gatway.replicas=3", ["'gatway' not allowed", "'gateway'"]),
    ("gateway.replicas=many", ["/gateway/replicas", "want integer"]),
    ("gateway.replicas=0", ["/gateway/replicas", "want 1"]),
    ("gateway.podDisruptionBudget.maxUnavailable=0", ["/gateway/podDisruptionBudget/maxUnavailable", "want 1"]),
    ("gateway.podDisruptionBudget.maxUnavailable=0%", ["maxUnavailable", "does not match"]),
    ("image.pullPolicy=always", ["/image/pullPolicy", "'Always'"]),
    ("operator.usageRetentionDays=-1", ["/operator/usageRetentionDays", "want 0"]),
    ("operator.usageRetentionDays=1y", ["/operator/usageRetentionDays", "want integer"]),
    ("pools.idleTimeout=60", ["/pools/idleTimeout", "want string"]),
    ("pools.idleTimeout=1 minute", ["/pools/idleTimeout", "does not match"]),
    ("extraEnv[0].nme=A", ["/extraEnv/0", "missing property 'name'", "'nme' not allowed"]),
    ("gateway.resources.limit.memory=1Gi", ["/gateway/resources", "'limit' not allowed"]),
    ("gateway.ingress.enabled=true", ["gateway.ingress.host is empty: set the host name"]),
    ("gateway.httpRoute.enabled=true", ["gateway.httpRoute.parentRefs is empty: name the Gateway"]),
    ("gateway.autoscaling.minReplicas=9", ["minReplicas (9) is above maxReplicas (8): raise"]),
    ("gateway.holdTimeoutSeconds=601", ["holdTimeoutSeconds (601) is above requestTimeoutSeconds (600)"]),
    ("gateway.service.nodePort=30080", ["gateway.service.type is ClusterIP: set the type"]),
    ("rbac.create=false", ["would have no rights: set operator.serviceAccount.create=false"]),
    (
        "extraVolumeMounts[0].name=models,extraVolumeMounts[0].mountPath=/models",
        ['mounts "models", which extraVolumes does not have'],
    ),
]


@pytest.mark.parametrize(("value", "said"), REFUSALS, ids=[value for value, _ in REFUSALS])
def test_wrong_values_are_refused_with_what_to_write_instead(value: str, said: list[str]) -> None:
    with pytest.raises(HelmError) as refusal:
        rendered("--set", value)
    for words in said:
        assert words in str(refusal.value)


def rights(rules: list[Any]) -> set[tuple[str, ...]]:
    """Rules as rows of docs/rbac.md: group, resources, names, verbs."""
    return {
        (
            group or "core",
            ", ".join(rule["resources"]),
            ", ".join(rule.get("resourceNames", ())),
            ", ".join(rule["verbs"]),
        )
        for rule in rules
        for group in rule["apiGroups"]
    }


def documented(heading: str) -> list[tuple[str, ...]]:
    """Rows of the first table after these words in docs/rbac.md."""
    after = (DOCS / "rbac.md").read_text().split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table
    rows = [tuple(cell.strip().replace("`", "") for cell in line.split("|")[1:-1]) for line in table[0].splitlines()]
    return rows[2:]


@pytest.mark.parametrize(
    ("kind", "heading"), [("ClusterRole", "In the whole cluster"), ("Role", "In its own namespace")]
)
def test_every_right_of_the_operator_is_in_the_docs_with_its_reason(
    default: list[Object], kind: str, heading: str
) -> None:
    rows = documented(heading)
    assert {row[:4] for row in rows} == rights(one(default, kind, "cotenant-operator")["rules"])
    assert all(len(row[4]) > 10 for row in rows)


def test_every_right_that_people_get_is_in_the_docs(default: list[Object]) -> None:
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    found = set()
    for name in ("cotenant-view", "cotenant-edit"):
        role = one(default, "ClusterRole", name)
        (rule,) = role["rules"]
        to = [label.removeprefix(aggregate) for label in role["metadata"]["labels"] if label.startswith(aggregate)]
        found.add((name, frozenset(to), ", ".join(rule["resources"]), ", ".join(rule["verbs"])))
    (rule,) = one(default, "ClusterRole", "cotenant-view-pools")["rules"]
    groups = frozenset(viewers_of_pools(default))
    found.add(("cotenant-view-pools", groups, ", ".join(rule["resources"]), ", ".join(rule["verbs"])))
    assert {(row[0], frozenset(row[1].split(", ")), *row[2:]) for row in documented("## People")} == found


def viewers_of_pools(objects: list[Object]) -> list[str]:
    subjects = one(objects, "ClusterRoleBinding", "cotenant-view-pools")["subjects"]
    assert {item["kind"] for item in subjects} == {"Group"}
    return [item["name"] for item in subjects]


def test_who_sees_pools_may_be_named() -> None:
    assert viewers_of_pools(rendered(*values_of("named-viewers"))) == ["ml-engineers", "platform"]
    objects = rendered("--set-json", "rbac.poolViewers=[]")
    assert "cotenant-view-pools" not in {item["metadata"]["name"] for item in objects}


@pytest.mark.parametrize("situation", situations())
def test_nobody_but_the_operator_reads_tenants(situation: str) -> None:
    roles = [item for item in rendered(*values_of(situation)) if item["kind"] in ("Role", "ClusterRole")]
    readers = {
        role["metadata"]["name"] for role in roles if any("tenants" in rule["resources"] for rule in role["rules"])
    }
    assert readers <= {"cotenant-operator"}


def test_nobody_may_do_anything_with_a_star(default: list[Object]) -> None:
    for item in default:
        if item["kind"] in ("Role", "ClusterRole"):
            assert "*" not in yaml.safe_dump(item["rules"]), item["metadata"]["name"]


def test_roles_service_accounts_and_pools_may_come_from_elsewhere(tmp_path: Path) -> None:
    objects = rendered(*values_of("no-rbac"))
    kinds = {item["kind"] for item in objects}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
    specs = dict(pod_specs(objects))
    assert specs["cotenant-operator"]["serviceAccountName"] == "ml-operator"
    assert specs["cotenant-gateway"]["serviceAccountName"] == "default"
    assert settings_of(objects, tmp_path).default_pool.enabled is False


def test_the_default_is_the_first_situation() -> None:
    assert situations()[0] == DEFAULT
