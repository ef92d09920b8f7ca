"""The command line against the API of a cluster: what it shows, whom it asks, what it says when it may not."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.api_server import TOKEN, ApiServer
from tests.builders.cluster_objects import crd, said, thing

Object = dict[str, Any]
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.integration


def model(name: str, namespace: str = "team-a", **status: Any) -> Object:
    conditions = status.pop("conditions", [said("Ready", "True", "Ready", "1 engine answers")])
    placement = {"engine": f"{namespace}.{name}-0a1b2c3d-0", "state": "ready", "device": "10.0.0.1/shared/0"}
    return thing(
        "ModelDeployment",
        name,
        namespace,
        spec={"model": f"hf://it/{name}", "pool": "default"},
        status={
            "conditions": conditions,
            "replicas": {"ready": 1, "desired": 2, "summary": "1/2"},
            "gpu": {"share": "12Gi", "groups": ["shared"]},
            "placements": [placement],
            "explanation": ["1 engine is ready, 1 is wanted"],
            **status,
        },
    )


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer(model("chat"), model("embed", "team-b")) as server:
        yield server


@pytest.fixture
def cotenant(api: ApiServer, tmp_path: Path) -> Run:
    environment = {name: value for name, value in os.environ.items() if name != "COTENANT_STATE"}
    environment |= {"HOME": str(tmp_path), "KUBECONFIG": str(api.kubeconfig(tmp_path))}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [sys.executable, "-m", "cotenant_operator", *arguments],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert TOKEN not in ran.stdout + ran.stderr
        return ran

    return run


def test_models_of_all_namespaces_come_from_their_status(cotenant: Run) -> None:
    ran = cotenant("get", "models")

    assert ran.returncode == 0, ran.stderr
    _, chat, embed = ran.stdout.splitlines()
    assert chat.split()[:6] == ["team-a/chat", "True", "Ready", "1/2", "Unknown", "12Gi"]
    assert embed.startswith("team-b/embed")
    assert ran.stderr == ""


def test_one_namespace_can_be_asked_for(cotenant: Run, api: ApiServer) -> None:
    assert [line.split()[0] for line in cotenant("get", "models", "-n", "team-b").stdout.splitlines()[1:]] == [
        "team-b/embed"
    ]
    assert api.asked[-1][1].endswith("/namespaces/team-b/modeldeployments")


def test_whoever_may_not_list_all_sees_the_namespace_of_the_context(cotenant: Run, api: ApiServer) -> None:
    api.forbid("/apis/cotenant.dev/v1alpha1/modeldeployments")
    ran = cotenant("get", "models")

    assert [line.split()[0] for line in ran.stdout.splitlines()[1:]] == ["team-a/chat"]
    assert "only those of namespace team-a" in ran.stderr


def test_a_right_that_is_lacking_is_named_with_who_can_grant_it(cotenant: Run, api: ApiServer) -> None:
    api.forbid("/apis/cotenant.dev/v1alpha1/gpupools")
    ran = cotenant("get", "pools")

    assert ran.returncode == 1
    assert "you may not list gpupools.cotenant.dev; an administrator of the cluster can grant it" in ran.stderr


def test_lists_that_come_in_pages_are_shown_whole(cotenant: Run, api: ApiServer) -> None:
    api.page = 2
    api.add(*(model(f"m{number}") for number in range(5)))

    assert len(cotenant("get", "models").stdout.splitlines()) == 8


def test_objects_are_shown_whole_as_yaml_but_for_the_servers_own_fields(cotenant: Run, api: ApiServer) -> None:
    item = model("chat")
    item["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    api.add(item)
    shown = yaml.safe_load(cotenant("get", "models", "-n", "team-a", "-o", "yaml").stdout)

    assert shown[0]["status"] == item["status"]
    assert "managedFields" not in shown[0]["metadata"]


def test_explain_tells_the_decision_the_conditions_and_the_engines(cotenant: Run) -> None:
    ran = cotenant("explain", "model", "chat")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "team-a/chat: ready (Ready): 1 engine answers"
    assert "1 engine is ready, 1 is wanted" in ran.stdout
    assert "engine team-a.chat-0a1b2c3d-0: ready on 10.0.0.1/shared/0" in ran.stdout


def test_a_model_that_nobody_has_looked_at_says_so(cotenant: Run, api: ApiServer) -> None:
    api.add({**model("new"), "status": {}})

    assert "no operator has looked at it" in cotenant("explain", "model", "team-a/new").stdout


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(cotenant: Run) -> None:
    ran = cotenant("explain", "model", "team-a/caht")

    assert ran.returncode == 1
    assert "did you mean 'team-a/chat'?" in ran.stderr


def test_a_cluster_without_cotenant_is_told_when_it_was_named(cotenant: Run, api: ApiServer) -> None:
    api.installed = False
    ran = cotenant("get", "models", "--context", "here")

    assert ran.returncode == 1
    assert "cotenant is not installed there" in ran.stderr


def test_a_cluster_without_cotenant_that_nobody_named_is_left_alone(cotenant: Run, api: ApiServer) -> None:
    api.installed = False
    ran = cotenant("get", "models")

    assert ran.returncode == 1
    assert "has no cotenant, so this is about this machine" in ran.stderr
    assert "nothing runs on the state directory" in ran.stderr
    assert "a cluster with --context NAME" in ran.stderr


def test_a_cluster_that_does_not_answer_says_where_it_was_looked_for(cotenant: Run, api: ApiServer) -> None:
    api.stop()
    ran = cotenant("get", "models", "--context", "here")

    assert ran.returncode == 1
    assert f"the cluster of context 'here' does not answer at {api.url}" in ran.stderr


def test_a_state_directory_that_is_named_is_not_a_cluster(cotenant: Run, tmp_path: Path) -> None:
    for ran in (cotenant("get", "models", "--state", str(tmp_path)), cotenant("get", "models", COTENANT_STATE="/s")):
        assert ran.returncode == 1
        assert "nothing runs on the state directory" in ran.stderr


def test_doctor_examines_the_cluster_and_names_what_it_may_not_see(cotenant: Run, api: ApiServer) -> None:
    api.add(crd("rayclusters.ray.io", {"authOptions": {}}))
    api.forbid("/api/v1/nodes")
    ran = cotenant("doctor")

    assert ran.returncode == 1
    assert "problem  crds" in ran.stdout
    assert "not looked at: you may not list nodes" in ran.stdout
    assert "helm install cotenant charts/cotenant" in ran.stdout
    assert "problem  pools" in ran.stdout
