"""The command line against the API of a cluster: what it shows, whom it asks, what it says when it may not."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.api_server import TOKEN, ApiServer
from tests.builders.cluster_objects import crd, kuberay, said, thing

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
def environment(api: ApiServer, tmp_path: Path) -> dict[str, str]:
    """Of somebody who has a kubeconfig and no `up`."""
    found = {name: value for name, value in os.environ.items() if name != "COTENANT_STATE"}
    return {**found, "HOME": str(tmp_path), "KUBECONFIG": str(api.kubeconfig(tmp_path))}


@pytest.fixture
def cotenant(environment: dict[str, str]) -> Run:
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
    assert "show a cluster instead: --context NAME, --kubeconfig FILE" in ran.stderr


def test_a_cluster_that_nobody_named_is_told_where_an_up_has_run_before(cotenant: Run, tmp_path: Path) -> None:
    (tmp_path / ".local" / "state" / "cotenant").mkdir(parents=True)

    assert "no `cotenant up` runs here: this is the cluster of context 'here'" in cotenant("get", "models").stderr


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


@pytest.mark.parametrize("name", ["kuberay-operator", "kuberay"])
def test_doctor_finds_kuberay_however_it_was_installed(cotenant: Run, api: ApiServer, name: str) -> None:
    api.add(crd("rayclusters.ray.io", {"authOptions": {}}))
    api.add(kuberay(name=name))

    assert re.search(r"ok +kuberay +kuberay-system/kuberay-operator 1\.6\.1", cotenant("doctor").stdout)


APP, OTHER = "team-a.chat-0a1b2c3d-0", "team-b.chat-0a1b2c3d-0"


def written(second: int, app: str, text: str) -> str:
    """A line of a pod's log, as the API server gives it."""
    return f"2026-11-26T10:00:{second:02}.000000000Z [{app}] 2026-11-26 10:00:{second:02},000 INFO {text}\n"


RUNS = (
    written(1, APP, "starting app: process 7, instance f00d, port 8800")
    + written(2, APP, "the first run")
    + written(3, OTHER, "not yours")
    + "2026-11-26T10:00:04.000000000Z raylet says something\n"
    + written(5, APP, "starting app: process 9, instance beef, port 8800")
    + written(6, APP, "the second run")
)


def placed(pod: str = "worker-1") -> Object:
    placement = {"engine": APP, "state": "ready", "device": "10.0.0.1/shared/0", "pod": pod}
    return model("chat", placements=[placement], selector="cotenant.dev/pool=default")


def test_logs_are_the_models_own_lines_since_it_started_last(cotenant: Run, api: ApiServer) -> None:
    api.add(placed())
    api.logs["cotenant-system", "worker-1", "ray-worker"] = RUNS
    ran = cotenant("logs", "team-a/chat")

    assert ran.returncode == 0, ran.stderr
    assert [line.split("INFO ")[1] for line in ran.stdout.splitlines()] == [
        "starting app: process 9, instance beef, port 8800",
        "the second run",
    ]


def test_logs_with_previous_are_those_of_all_workers_and_of_containers_that_ended(
    cotenant: Run, api: ApiServer
) -> None:
    restarted = {"containerStatuses": [{"name": "ray-worker", "restartCount": 1}]}
    labels = {"cotenant.dev/pool": "default"}
    api.add(placed(), thing("Pod", "worker-1", "cotenant-system", labels=labels, status=restarted))
    api.add(thing("Pod", "worker-2", "cotenant-system", labels=labels))
    api.logs["cotenant-system", "worker-1", "ray-worker"] = RUNS
    api.logs["cotenant-system", "worker-1", "ray-worker previous"] = written(0, APP, "before the container ended")
    api.logs["cotenant-system", "worker-2", "ray-worker"] = written(7, APP, "on another worker")
    ran = cotenant("logs", "team-a/chat", "--previous")

    said = [line.split("INFO ")[1] for line in ran.stdout.splitlines()]
    assert said[0] == "before the container ended"
    assert "the first run" in said
    assert said[-1] == "on another worker"


def test_logs_end_with_the_last_lines_that_were_asked_for(cotenant: Run, api: ApiServer) -> None:
    api.add(placed())
    api.logs["cotenant-system", "worker-1", "ray-worker"] = RUNS
    ran = cotenant("logs", "team-a/chat", "--tail", "1", "--since", "1h")

    assert ran.stdout.endswith("INFO the second run\n")
    assert ran.stdout.count("\n") == 1
    assert api.asked[-1][2]["sinceSeconds"] == "3600"


def test_logs_that_may_not_be_read_say_whose_right_it_is_and_what_the_object_says(
    cotenant: Run, api: ApiServer
) -> None:
    failed = [said("Ready", "False", "LoadFailed", "CUDA out of memory")]
    api.add({**placed(), "status": {**placed()["status"], "conditions": failed}})
    about = {"kind": "ModelDeployment", "name": "chat"}
    event = thing(
        "Event", "e", "team-a", involvedObject=about, reason="LoadFailed", type="Warning", message="no room"
    )
    api.add(event)
    api.forbid("/api/v1/namespaces/cotenant-system")
    ran = cotenant("logs", "team-a/chat")

    assert ran.returncode == 1
    assert "you may not get pods/log in namespace cotenant-system; an administrator" in ran.stderr
    assert "Ready is False (LoadFailed): CUDA out of memory" in ran.stderr
    assert "Warning LoadFailed: no room" in ran.stderr


def test_a_model_without_any_engine_says_why(cotenant: Run, api: ApiServer) -> None:
    cold = [said("Ready", "False", "Idle", "it starts with the first request")]
    api.add(model("cold", conditions=cold, placements=[], selector="cotenant.dev/pool=default"))
    ran = cotenant("logs", "team-a/cold")

    assert ran.returncode == 1
    assert "no engine of team-a/cold has left a line in any pod" in ran.stderr
    assert "Ready is False (Idle): it starts with the first request" in ran.stderr


def test_logs_go_on_with_what_comes_and_repeat_nothing(environment: dict[str, str], api: ApiServer) -> None:
    api.add(placed())
    log = ("cotenant-system", "worker-1", "ray-worker")
    api.logs[log] = RUNS
    command = [sys.executable, "-m", "cotenant_operator", "logs", "team-a/chat", "-f"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(2)]
        api.logs[log] += written(8, APP, "what came later")
        later = child.stdout.readline()
        child.kill()
    assert first[1].endswith("the second run\n")
    assert later.endswith("what came later\n")


def ledger(day: str, *rows: list[object]) -> Object:
    labels = {"cotenant.dev/usage": "true", "cotenant.dev/usage-day": day}
    data = {"day": day, "totals": json.dumps(rows), "sequences": "{}"}
    return thing("ConfigMap", f"cotenant-usage-{day}", "cotenant-system", labels=labels, data=data)


def test_usage_is_summed_up_over_the_ledgers_of_all_gateways(cotenant: Run, api: ApiServer) -> None:
    api.add(
        ledger("2026-11-25", ["search", "team-a/chat", "ok", 3, 30, 60, 0, 1.5, 1.0, 2.0]),
        ledger("2026-11-26", ["search", "team-a/chat", "ok", 2, 20, 40, 0, 1.5, 3.0, 4.0]),
    )
    rows = yaml.safe_load(cotenant("usage", "-o", "yaml").stdout)["rows"]

    assert [(row["tenant"], row["model"], row["requests"], row["total_tokens"]) for row in rows] == [
        ("search", "team-a/chat", 5, 150)
    ]
    assert yaml.safe_load(cotenant("usage", "--since", "2026-11-26", "-o", "yaml").stdout)["total"]["requests"] == 2
    ran = cotenant("usage", "--since", "2026-11-26T10:00Z", "-o", "yaml")
    assert yaml.safe_load(ran.stdout)["total"]["requests"] == 2
    assert "all of the day that --since falls on is counted" in ran.stderr
    assert "the first day" not in ran.stderr
    ran = cotenant("usage", "--since", "2026-11-24", "-o", "yaml")
    assert "the first day that there is usage of is 2026-11-25; older days are deleted" in ran.stderr
    ran = cotenant("usage", "--since", "2026-11-26T00:00Z", "-o", "yaml")
    assert (yaml.safe_load(ran.stdout)["total"]["requests"], ran.stderr) == (2, "")


def tenant(name: str = "search", *keys: str) -> Object:
    references = [{"secretRef": {"name": secret, "key": "token"}} for secret in keys]
    seen = {"observedGeneration": 1}
    return thing("Tenant", name, spec={"namespaces": ["team-a"], "keys": references}, status=seen)


def secrets_of(api: ApiServer) -> dict[str, Object]:
    return {name: item for name, item in api.objects.items() if item["kind"] == "Secret"}


def test_a_key_is_made_in_a_secret_that_its_tenant_names_and_shown_once(cotenant: Run, api: ApiServer) -> None:
    api.add(tenant())
    ran = cotenant("key", "create", "search")

    assert ran.returncode == 0, ran.stderr
    key = ran.stdout.strip()
    ((path, secret),) = secrets_of(api).items()
    assert path.startswith("/api/v1/namespaces/cotenant-system/secrets/search-key-")
    assert secret["stringData"] == {"token": key}
    reference = {"secretRef": {"name": secret["metadata"]["name"], "key": "token"}}
    assert api.objects["/apis/cotenant.dev/v1alpha1/tenants/search"]["spec"]["keys"] == [reference]
    assert key not in ran.stderr


def test_a_key_whose_tenant_may_not_be_changed_leaves_no_secret(cotenant: Run, api: ApiServer) -> None:
    api.add(tenant())
    api.forbid("PATCH /apis/cotenant.dev/v1alpha1/tenants")
    ran = cotenant("key", "create", "search")

    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "you may not patch tenants.cotenant.dev" in ran.stderr
    assert secrets_of(api) == {}


def test_a_key_for_a_tenant_that_does_not_exist_is_refused(cotenant: Run, api: ApiServer) -> None:
    api.add(tenant())
    ran = cotenant("key", "create", "serach")

    assert "there is no tenant 'serach'; did you mean 'search'?" in ran.stderr
    assert secrets_of(api) == {}


def test_keys_are_listed_by_id_and_those_that_were_made_can_be_revoked(cotenant: Run, api: ApiServer) -> None:
    api.add(tenant("search", "by-hand"))
    value = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    api.add(thing("Secret", "by-hand", "cotenant-system", data={"token": value}))
    key = cotenant("key", "create", "search").stdout.strip()
    listed = {row["source"]: row for row in yaml.safe_load(cotenant("key", "list", "-o", "yaml").stdout)}

    assert listed["key create"]["id"] == hashlib.sha256(key.encode()).hexdigest()[:12]
    hand = listed["Secret by-hand, token"]
    assert hand["id"] == hashlib.sha256(b"0123456789abcdef0123456789abcdef").hexdigest()[:12]

    assert cotenant("key", "revoke", listed["key create"]["id"]).returncode == 0
    assert [path.rpartition("/")[2] for path in secrets_of(api)] == ["by-hand"]
    ran = cotenant("key", "revoke", hand["id"])
    assert ran.returncode == 0, ran.stderr
    assert "kubectl -n cotenant-system delete secret by-hand" in ran.stderr
    assert api.objects["/apis/cotenant.dev/v1alpha1/tenants/search"]["spec"]["keys"] == []
    assert len(secrets_of(api)) == 1


def test_keys_whose_secrets_may_not_be_read_are_listed_without_ids(cotenant: Run, api: ApiServer) -> None:
    api.add(tenant("search", "by-hand"))
    api.forbid("/api/v1/namespaces/cotenant-system/secrets")
    ran = cotenant("key", "list")

    assert ran.stdout.splitlines()[1].split()[:3] == ["-", "search", "Secret"]
    assert "you may not get secrets in namespace cotenant-system" in ran.stderr


ECHO = """\
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {name: echo}
spec: {task: echo, gpu: {memory: 512Mi}}
"""
GROUP = {"name": "cpu", "device": "cpu", "memory": "1Gi"}


def test_plan_says_what_applying_a_file_would_change_and_writes_nothing(
    cotenant: Run, api: ApiServer, tmp_path: Path
) -> None:
    api.objects.clear()
    api.add(thing("GPUPool", "default", spec={"workers": [GROUP]}), tenant())
    (tmp_path / "echo.yaml").write_text(ECHO)
    ran = cotenant("plan", "-f", str(tmp_path / "echo.yaml"))

    assert ran.returncode == 0, ran.stderr
    assert "ModelDeployment  team-a/echo  new" in ran.stdout
    assert "accepted" in ran.stdout
    assert {verb for verb, _, _ in api.asked} == {"GET"}
    document = yaml.safe_load(cotenant("plan", "-f", str(tmp_path / "echo.yaml"), "-o", "yaml").stdout)
    assert document["changes"][0]["change"] == "new"
    assert document["models"]["team-a/echo"]["engine"]["candidates"][0]["group"] == "cpu"


def test_plan_refuses_what_does_not_fit_the_clusters_pools(cotenant: Run, api: ApiServer, tmp_path: Path) -> None:
    api.add(thing("GPUPool", "default", spec={"workers": [GROUP]}))
    (tmp_path / "echo.yaml").write_text(ECHO.replace("512Mi", "4Gi"))
    ran = cotenant("plan", "-f", str(tmp_path / "echo.yaml"))

    assert ran.returncode == 3
    assert "refused: DoesNotFit" in ran.stdout


def test_plan_without_the_right_to_see_tenants_still_says_what_fits(
    cotenant: Run, api: ApiServer, tmp_path: Path
) -> None:
    api.add(thing("GPUPool", "default", spec={"workers": [GROUP]}))
    api.forbid("/apis/cotenant.dev/v1alpha1/tenants")
    (tmp_path / "echo.yaml").write_text(ECHO)
    ran = cotenant("plan", "-f", str(tmp_path / "echo.yaml"))

    assert ran.returncode == 0, ran.stderr
    assert "who would see the models is not known: you may not list tenants.cotenant.dev" in ran.stderr


def test_plan_leaves_to_the_operator_what_only_its_pod_can_read(
    cotenant: Run, api: ApiServer, tmp_path: Path
) -> None:
    api.add(thing("GPUPool", "default", spec={"workers": [GROUP]}))
    (tmp_path / "chat.yaml").write_text(ECHO.replace("task: echo", "model: file:///nowhere/chat"))
    ran = cotenant("plan", "-f", str(tmp_path / "chat.yaml"))

    assert ran.returncode == 0, ran.stderr
    assert "file:///nowhere/chat is not on this machine: the operator reads it" in ran.stderr
    assert "FactsPending" in ran.stdout
