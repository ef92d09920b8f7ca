"""The command line against a real cluster: as its administrator, and as somebody who may edit one namespace."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from tests.builders.calls import key_of
from tests.builders.kube import Kube, condition
from tests.builders.release import NAMESPACE, Release
from tests.builders.up import echo, keys, pool, tenant

GROUPS = (
    {"name": "cpu", "device": "cpu", "memory": "1Gi", "max": 2},
    {"name": "mig", "device": "cpu", "resource": "nvidia.com/mig-7g.80gb", "memory": "1Gi", "sharing": "mig"},
)
CHAT = echo("chat", replicas={"min": 1, "max": 1})
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    for name in ("search", "ads"):
        namespaces(name)
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(keys("search"), tenant("search"), pool(*GROUPS))
    kube.apply(CHAT, echo("others", namespace="ads"))
    release.reach()
    ready = condition_of(release, "chat")
    kube.until(lambda: ready().get("status") == "True", "chat is ready", limit_s=300)
    assert "one two" in release.text("search", "chat", "one two")
    return release


def condition_of(release: Release, name: str) -> Callable[[], dict[str, Any]]:
    return lambda: condition(release.model(name, "search"), "Ready")


def runner(kubeconfig: str, home: Path) -> Run:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COTENANT_")}
    environment |= {"KUBECONFIG": kubeconfig, "HOME": str(home)}

    def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cotenant_operator", *arguments]
        return subprocess.run(
            command, env=environment | more, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture
def administrator(installed: Release, kube: Kube, tmp_path: Path) -> Run:
    return runner(kube.environment["KUBECONFIG"], tmp_path)


@pytest.fixture
def editor(installed: Release, kube: Kube, tmp_path: Path) -> Run:
    """Has Kubernetes' own ClusterRole `edit` in namespace search, and no other right."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "editor", "namespace": "search"}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "editor", "namespace": "search"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": "search"}],
    }
    kube.apply(account, binding)
    config = yaml.safe_load(kube.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    config["users"] = [
        {"name": "it", "user": {"token": kube.kubectl("create", "token", "editor", "-n", "search").strip()}}
    ]
    config["contexts"][0]["context"] |= {"user": "it", "namespace": "search"}
    (tmp_path / "editor.yaml").write_text(yaml.safe_dump(config))
    return runner(str(tmp_path / "editor.yaml"), tmp_path)


def test_models_pools_and_tenants_are_shown_as_their_status_has_them(administrator: Run):
    models = administrator("get", "models")
    assert [line.split()[:3] for line in models.stdout.splitlines()[1:]][1] == ["search/chat", "True", "Ready"]
    pools = administrator("get", "pools")
    assert pools.stdout.splitlines()[1].split()[:3] == ["default", "True", "Ready"], pools.stdout
    assert "cpu" in pools.stdout
    assert administrator("get", "tenants").stdout.splitlines()[1].split()[:3] == ["search", "True", "1"]


def test_an_editor_of_a_namespace_sees_its_models_and_why_without_any_other_right(editor: Run):
    models = editor("get", "models")
    assert [line.split()[0] for line in models.stdout.splitlines()[1:]] == ["search/chat"], models.stderr
    assert "only those of namespace search" in models.stderr
    explained = editor("explain", "model", "chat")
    assert explained.stdout.startswith("search/chat: ready (Ready)"), explained.stderr
    assert "engine search.chat-" in explained.stdout
    assert editor("get", "pools").stdout.splitlines()[1].split()[:3] == ["default", "True", "Ready"]
    refused = editor("get", "tenants")
    assert refused.returncode == 1
    assert "you may not list tenants.cotenant.dev; an administrator" in refused.stderr


def test_an_editor_of_a_namespace_plans_a_change_of_its_models(editor: Run, tmp_path: Path):
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(echo("chat", concurrency=3, replicas={"min": 1})))
    ran = editor("plan", "-f", str(tmp_path / "it.yaml"), "-o", "yaml")
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(ran.stdout)["changes"][0]["effect"].startswith("a new revision")
    assert "who would see the models is not known" in ran.stdout + ran.stderr


def test_logs_find_the_engines_lines_and_say_whose_right_it_is(administrator: Run, editor: Run):
    ran = administrator("logs", "search/chat")
    assert ran.returncode == 0, ran.stderr
    assert "INFO ready after" in ran.stdout
    refused = editor("logs", "chat")
    assert refused.returncode == 1
    assert f"you may not get pods/log in namespace {NAMESPACE}" in refused.stderr
    assert "search/chat: Ready is True" in refused.stderr


def test_a_model_that_never_ran_says_why_there_is_no_log(administrator: Run):
    ran = administrator("logs", "ads/others")
    assert ran.returncode == 1
    assert "ads/others: Ready is False" in ran.stderr


def test_plan_says_what_is_applied_in_place_and_what_needs_new_pods_and_writes_nothing(
    administrator: Run, kube: Kube, tmp_path: Path
):
    def planned(*objects: dict[str, Any]) -> dict[str, str]:
        (tmp_path / "it.yaml").write_text(yaml.safe_dump_all(objects))
        ran = administrator("plan", "-f", str(tmp_path / "it.yaml"), "-o", "yaml")
        assert ran.returncode in (0, 3), ran.stderr
        return {item["name"]: f"{item['change']}: {item['effect']}" for item in yaml.safe_load(ran.stdout)["changes"]}

    same, wider, moved = (
        planned(pool({**GROUPS[0], **change}, GROUPS[1]))["default"]
        for change in ({}, {"max": 3}, {"nodeSelector": {"disk": "fast"}})
    )
    assert same == "unchanged: nothing"
    assert wider == "edited: in place: no pod is replaced"
    assert moved.startswith("edited: needs new pods (group cpu)")
    assert planned(echo("chat", concurrency=3, replicas={"min": 1}))["search/chat"].startswith(
        "edited: a new revision"
    )
    assert planned(echo("chat", gpu={"memory": "9Gi"}))["search/chat"].startswith("edited: refused")
    assert kube.get("GPUPool", "default")["metadata"]["generation"] == 1


def test_a_created_key_opens_the_gateway_until_it_is_revoked(administrator: Run, installed: Release, kube: Kube):
    made = administrator("key", "create", "search")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()

    def taken() -> bool:
        with openai.OpenAI(base_url=f"{installed.url}/v1", api_key=key, max_retries=0, timeout=30) as client:
            try:
                return [one.id for one in client.models.list()] != []
            except openai.AuthenticationError:
                return False

    kube.until(taken, "the gateways take it", limit_s=30)
    listed = yaml.safe_load(administrator("key", "list", "search", "-o", "yaml").stdout)
    (own,) = [row for row in listed if row["source"] == "key create"]
    assert [row["source"] for row in listed if row is not own] == [
        f"Secret {keys('search')['metadata']['name']}, search"
    ]
    assert own["id"] in made.stderr

    revoked = administrator("key", "revoke", own["id"])
    assert revoked.returncode == 0, revoked.stderr
    kube.until(lambda: not taken(), "the gateways refuse it", limit_s=30)
    assert [one for one in kube.objects("Secret", NAMESPACE) if own["id"] in one["metadata"]["name"]] == []


def test_chat_and_usage_work_through_the_gateways_address(administrator: Run, installed: Release, kube: Kube):
    ran = administrator("chat", "chat", "-m", "one two", "--url", installed.url, COTENANT_API_KEY=key_of("search"))
    assert "one two" in ran.stdout, ran.stderr

    def counted() -> bool:
        found = json.loads(administrator("usage", "-o", "json").stdout)
        return any(row["model"] == "search/chat" and row["requests"] >= 2 for row in found["rows"])

    kube.until(counted, "usage has both requests", limit_s=60)


def test_doctor_names_the_kind_of_gpu_that_no_node_has_and_nothing_else_of_cotenant(administrator: Run):
    ran = administrator("doctor", "-o", "json")
    found = {item["check"]: item for item in json.loads(ran.stdout)["findings"]}

    assert "nvidia.com/mig-7g.80gb" in found["pool default: group mig"]["message"]
    for check in ("kubernetes", "crds", "operator", "operator leader", "secrets", "gateway", "pool default", "pods"):
        assert found[check]["level"] == "ok", found[check]
    assert base64.b64encode(key_of("search").encode()).decode() not in ran.stdout
