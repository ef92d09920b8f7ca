"""GPUPool → RayCluster: what KubeRay and Ray need, and what a hardened namespace demands."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotenant_operator.operator_settings import STOPPING_S, OperatorSettings
from cotenant_operator.render.raycluster import keep_scale, leaving, render_conductor_service, render_raycluster
from cotenant_operator.spec import GPUPool
from cotenant_serving.conductor.__main__ import read_arguments
from cotenant_serving.contract import REQUEST_TIMEOUT_S, share_resource

SLICE = {"device": "cuda", "resource": "nvidia.com/mig-1g.10gb", "memory": "9856Mi", "sharing": "mig"}
WORKERS: list[dict[str, Any]] = [
    {"name": "shared", "device": "cuda", "memory": "80Gi", "max": 8},
    {"name": "mig-1g10gb", **SLICE, "max": 14},
    {"name": "mig-1g10gb-me", **SLICE, "resource": "nvidia.com/mig-1g.10gb.me"},
    {"name": "cpu", "device": "cpu", "memory": "8Gi"},
    {"name": "counted", "device": "cpu", "memory": "8Gi", "resource": "nvidia.com/gpu"},
]
REDIS = {"address": "redis:6379", "secretRef": {"name": "redis", "key": "password"}}
HUB = {"hub": {"endpoint": "https://hub.example", "secretRef": {"name": "hub", "key": "token"}}}


def pool(*workers: dict[str, Any], **spec: Any) -> GPUPool:
    return GPUPool.model_validate(
        {"metadata": {"name": "default"}, "spec": {"workers": list(workers) or WORKERS, **spec}}
    )


def rendered(*workers: dict[str, Any], settings: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return render_raycluster(pool(*workers, **spec), OperatorSettings.model_validate(settings or {}), "default-x")


def groups(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}


def pods(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    head = cluster["spec"]["headGroupSpec"]["template"]
    return {"head": head, **{name: group["template"] for name, group in groups(cluster).items()}}


def containers(cluster: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod's spec, container), KubeRay's autoscaler too, which gets the head's volumes."""
    for template in pods(cluster).values():
        for container in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"]):
            yield template["spec"], container
    yield pods(cluster)["head"]["spec"], cluster["spec"]["autoscalerOptions"]


def worker(name: str = "shared", **more: Any) -> dict[str, Any]:
    (container,) = groups(rendered(**more))[name]["template"]["spec"]["containers"]
    return container


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


# ---- devices


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("shared", "nvidia.com/gpu"),
        ("mig-1g10gb", "nvidia.com/mig-1g.10gb"),
        ("mig-1g10gb-me", "nvidia.com/mig-1g.10gb.me"),
        ("counted", "nvidia.com/gpu"),
    ],
)
def test_a_pod_holds_one_device(name: str, resource: str) -> None:
    assert worker(name)["resources"]["limits"][resource] == "1"


@pytest.mark.parametrize(
    ("name", "gpus"), [("shared", "1"), ("mig-1g10gb", "1"), ("mig-1g10gb-me", "1"), ("cpu", "0"), ("counted", "0")]
)
def test_every_group_says_its_resources_so_that_it_scales_from_zero(name: str, gpus: str) -> None:
    assert groups(rendered())[name]["resources"] == {"CPU": "1", "GPU": gpus, f"share_{name}": "1"}


@pytest.mark.parametrize("name", ["gpu", "shared-gpu", "a-gpu", "big-100gpu"])
def test_the_resource_of_a_group_is_never_one_that_kuberay_takes_for_gpus(name: str) -> None:
    resources = groups(rendered({"name": name, "device": "cuda", "memory": "80Gi"}))[name]["resources"]
    assert set(resources) == {"CPU", "GPU", share_resource(name)}
    assert not share_resource(name).lower().endswith("gpu")
    assert share_resource(name) == f"share_{name}_"


def test_no_two_groups_share_a_resource() -> None:
    names = ["gpu", "gpu-", "gp", "gpus", "x-gpu"]
    assert len({share_resource(name) for name in names}) == len(names)


def test_engines_of_a_cpu_group_share_memory_that_its_pod_has() -> None:
    memory = {"memory": "9216Mi"}  # 8Gi and what Ray itself takes
    resources = worker("cpu")["resources"]
    assert resources["limits"] == memory
    assert resources["requests"]["memory"] == memory["memory"]


def test_a_group_s_own_resources_win() -> None:
    own = {"requests": {"cpu": 4}, "limits": {"memory": "64Gi"}}
    (container,) = pods(rendered({**WORKERS[0], "resources": own}))["shared"]["spec"]["containers"]
    # Without a default request beside it, the limit is the request.
    assert container["resources"] == {"requests": {"cpu": "4"}, "limits": {"memory": "64Gi", "nvidia.com/gpu": "1"}}


def test_numbers_of_pods_are_the_autoscaler_s() -> None:
    assert {(group["minReplicas"], group["maxReplicas"]) for group in groups(rendered()).values()} == {
        (0, 8),
        (0, 14),
        (0, 1),
    }
    assert not any("replicas" in group for group in groups(rendered()).values())
    assert rendered()["spec"]["enableInTreeAutoscaling"] is True


# ---- security


def test_every_pod_satisfies_restricted() -> None:
    for template in pods(rendered(head={"redis": REDIS}, cache=HUB)).values():
        security = template["spec"]["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {next(iter(volume.keys() - {"name"})) for volume in template["spec"]["volumes"]} <= {
            "emptyDir",
            "secret",
            "configMap",
            "downwardAPI",
        }


def test_every_container_satisfies_restricted_with_a_root_that_is_read_only() -> None:
    found = list(containers(rendered()))
    assert len(found) == 2 + 2 * len(WORKERS) + 1
    for _, container in found:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        }


def test_every_mount_has_its_volume_and_tmp_is_writable() -> None:
    for spec, container in containers(rendered(cache=HUB)):
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert mounts["/tmp"] == "tmp"


def test_no_secret_stands_in_an_environment() -> None:
    cluster = rendered(head={"redis": REDIS}, cache=HUB)
    for _, container in containers(cluster):
        assert not any("secretKeyRef" in (item.get("valueFrom") or {}) for item in container["env"])
    # KubeRay has no other way for this one:
    assert cluster["spec"]["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }


def test_tokens_are_files_and_workers_have_no_control_token() -> None:
    by_pod = {
        name: {
            volume["name"]: [item["key"] for item in volume["secret"]["items"]]
            for volume in template["spec"]["volumes"]
            if "secret" in volume
        }
        for name, template in pods(rendered(WORKERS[0], cache=HUB)).items()
    }
    assert by_pod["head"] == {"ray-token": ["auth_token"], "tokens": ["pool-token", "control-token"]}
    assert by_pod["shared"] == {"ray-token": ["auth_token"], "tokens": ["pool-token"], "hub-token": ["token"]}


def test_ray_takes_its_token_from_the_file_and_nothing_turns_that_off() -> None:
    off = [{"name": "RAY_AUTH_MODE", "value": "disabled"}, {"name": "RAY_AUTH_TOKEN", "value": "x"}]
    cluster = rendered(settings={"extraEnv": off})
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    for template in pods(cluster).values():
        for container in template["spec"]["containers"]:
            assert env(container)["RAY_AUTH_MODE"] == "token"
            assert env(container)["RAY_AUTH_TOKEN"] == ""
            assert env(container)["RAY_AUTH_TOKEN_PATH"] == "/etc/cotenant/ray/auth_token"
    assert not any(name.startswith("RAY_AUTH") for name in env(cluster["spec"]["autoscalerOptions"]))


def test_workers_have_no_token_for_the_api_server() -> None:
    assert all(
        template["spec"].get("automountServiceAccountToken") is False
        for name, template in pods(rendered()).items()
        if name != "head"
    )


# ---- head


def test_nothing_but_serve_lands_on_the_head_and_its_containers_start_again() -> None:
    cluster = rendered()
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    spec = pods(cluster)["head"]["spec"]
    assert (spec["shareProcessNamespace"], spec["restartPolicy"]) == (True, "Always")
    assert "version" not in cluster["spec"]["autoscalerOptions"]  # KubeRay would then force Never
    assert env(spec["containers"][0])["RAY_enable_autoscaler_v2"] == "1"


def test_the_conductor_shares_what_a_ray_driver_needs_and_waits_for_the_raylet() -> None:
    ray, conductor = pods(rendered())["head"]["spec"]["containers"]
    assert (ray["name"], conductor["name"]) == ("ray-head", "conductor")
    shared = {"/tmp/ray": "ray-logs", "/dev/shm": "shared-mem"}
    for container in (ray, conductor):
        assert shared.items() <= {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}.items()
    assert "/sockets/raylet" in conductor["command"][2]


def test_engines_reach_the_conductor_by_a_name_that_outlives_the_head_s_pod() -> None:
    conductor = pods(rendered(settings={"namespace": "ours"}))["head"]["spec"]["containers"][1]
    assert "--advertise=http://default-x-conductor.ours.svc:8700" in conductor["command"]
    service = render_conductor_service(pool(), OperatorSettings(namespace="ours"), "default-x")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("default-x-conductor", "ours")
    assert service["spec"]["selector"] == {"ray.io/cluster": "default-x", "ray.io/node-type": "head"}


# ---- workers


@pytest.mark.parametrize(
    ("settings", "longest_s"),
    [({}, REQUEST_TIMEOUT_S), ({"requestTimeout": "30m"}, 1800), ({"requestTimeout": "1m500ms"}, 60.5)],
)
def test_a_worker_may_finish_the_longest_request_before_it_is_killed(
    settings: dict[str, str], longest_s: float
) -> None:
    cluster = pods(rendered(settings=settings))
    for name, template in cluster.items():
        if name != "head":
            drain_s = float(env(template["spec"]["containers"][0])["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert longest_s + STOPPING_S <= drain_s < template["spec"]["terminationGracePeriodSeconds"]
    command = cluster["head"]["spec"]["containers"][1]["command"]
    assert read_arguments(command[command.index("cotenant_serving.conductor") + 1 :]).request_timeout_s == longest_s


@pytest.mark.parametrize(("ray", "code"), [("", 143), ("ray start", 0)])
def test_a_worker_that_waits_for_its_head_takes_sigterm_and_ray_gets_it_itself(
    tmp_path: Path, ray: str, code: int
) -> None:
    """KubeRay's container is a bash as the first process, which no signal ends that it has no trap for."""
    template = pods(rendered(WORKERS[0]))["shared"]
    shell = tmp_path / "env"
    shell.write_text(template["metadata"]["annotations"]["cotenant.dev/shell"])
    assert env(template["spec"]["containers"][0])["BASH_ENV"] == "/etc/cotenant/shell/env"
    variables = {"PATH": os.environ["PATH"], "BASH_ENV": str(shell), "KUBERAY_GEN_RAY_START_CMD": ray}
    asked = "trap -p TERM | grep -q 'exit 143' && kill -TERM $$; exit 0"
    assert subprocess.run(["bash", "-c", asked], env=variables, check=False).returncode == code


def test_a_worker_knows_its_node_and_pod_and_where_its_weight_cache_listens() -> None:
    found = env(worker(cache=HUB))
    assert found["NODE_NAME"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    assert found["POD_NAME"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert found["COTENANT_CACHE_SOCKET"] == "/run/cotenant/cache.sock"
    assert not any(name.startswith("HF_") for name in found), "engines ask the cache, and never a hub"


def models_volume(**cache: Any) -> Any:
    volumes = pods(rendered(WORKERS[0], cache=cache))["shared"]["spec"]["volumes"]
    return next(volume for volume in volumes if volume["name"] == "models")


def test_models_stand_in_the_pod_unless_the_cache_has_a_folder_or_a_claim() -> None:
    assert models_volume() == models_volume(size="10Gi") == {"name": "models", "emptyDir": {}}
    assert models_volume(path="/models", size="10Gi") == {
        "name": "models",
        "hostPath": {"path": "/models", "type": "Directory"},
    }
    assert models_volume(claimName="weights") == {
        "name": "models",
        "persistentVolumeClaim": {"claimName": "weights"},
    }


def test_the_sidecar_alone_writes_to_the_volume_and_has_the_hubs_token() -> None:
    cache = {**HUB, "size": "10Gi", "downloadRate": "100Mi", "verifyRate": "1Mi"}
    spec = pods(rendered(WORKERS[0], cache=cache))["shared"]["spec"]
    (sidecar,), (ray,) = spec["initContainers"], spec["containers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("cache", "Always"), "there before Ray, and after it"
    mounts = [
        {mount["name"]: mount.get("readOnly", False) for mount in one["volumeMounts"]} for one in (sidecar, ray)
    ]
    assert [one["models"] for one in mounts] == [False, True]
    assert ["hub-token" in one for one in mounts] == [True, False]
    assert [one["cache-socket"] for one in mounts] == [False, False]
    words = dict(word.removeprefix("--").partition("=")[::2] for word in sidecar["command"][3:])
    assert (words["budget"], words["rate"], words["verify-rate"]) == (
        str(10 * 2**30),
        str(100 * 2**20),
        str(2**20),
    )
    assert (words["hub-endpoint"], words["hub-token-file"]) == ("https://hub.example", "/etc/cotenant/hub/token")


# ---- passing on


def test_what_a_pool_says_of_its_pods_is_passed_on() -> None:
    own: dict[str, Any] = {
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"x": []}},
        "runtimeClassName": "nvidia",
    }
    cluster = rendered({**WORKERS[0], **own}, head=own)
    for name in ("head", "shared"):
        assert own.items() <= pods(cluster)[name]["spec"].items()


def test_a_pod_template_is_laid_over_everything() -> None:
    patch = {
        "metadata": {"annotations": {"team": "search"}},
        "spec": {
            "priorityClassName": "high",
            "containers": [{"name": "ray-worker", "env": [{"name": "A", "value": "1"}]}],
        },
    }
    template = pods(rendered({**WORKERS[0], "podTemplate": patch}))["shared"]
    assert template["metadata"]["annotations"]["team"] == "search"
    assert template["metadata"]["labels"]["cotenant.dev/group"] == "shared"
    assert template["spec"]["priorityClassName"] == "high"
    (container,) = template["spec"]["containers"]
    assert env(container)["A"] == "1"
    assert "NODE_NAME" in env(container)


def test_settings_reach_every_container() -> None:
    settings = {
        "image": {"name": "example/serving:2", "pullPolicy": "Never", "pullSecrets": ["registry"]},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
        "extraVolumes": [{"name": "files", "configMap": {"name": "files"}}],
        "extraVolumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    cluster = rendered(settings=settings)
    for spec, container in containers(cluster):
        assert (container["image"], container["imagePullPolicy"]) == ("example/serving:2", "Never")
        assert env(container)["HTTPS_PROXY"] == "http://proxy"
        assert {"name": "files", "mountPath": "/files"} in container["volumeMounts"]
        assert {"name": "files", "configMap": {"name": "files"}} in spec["volumes"]
        assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_queue_is_kueue_s_label() -> None:
    assert rendered(queueName="team")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "kueue.x-k8s.io/queue-name" not in rendered()["metadata"]["labels"]


def test_idle_pods_go_after_what_the_pool_says_else_the_settings() -> None:
    assert rendered(idleAfter="2m")["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] == 120
    settings = {"ray": {"idleTimeout": "90s"}}
    assert rendered(settings=settings)["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] == 90


def test_a_pod_that_waits_for_a_node_is_given_up_soon_after_nothing_needs_it() -> None:
    found = env(rendered()["spec"]["autoscalerOptions"])
    assert int(found["RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S"]) <= 60
    assert int(found["AUTOSCALER_UPDATE_INTERVAL_S"]) < 5  # Ray's default, which a model that wakes would wait for


# ---- what is there already


def test_the_autoscaler_s_numbers_are_kept() -> None:
    live = rendered()
    live["spec"]["workerGroupSpecs"][1] |= {"replicas": 3, "scaleStrategy": {"workersToDelete": ["pod"]}}
    kept = groups(keep_scale(rendered(), live))
    assert (kept["mig-1g10gb"]["replicas"], kept["mig-1g10gb"]["scaleStrategy"]) == (3, {"workersToDelete": ["pod"]})
    assert "replicas" not in kept["shared"]


def test_a_raycluster_on_its_way_out_keeps_no_pod_that_is_empty() -> None:
    live = rendered({**WORKERS[0], "min": 2})
    gone = leaving(live)
    assert groups(gone)["shared"]["minReplicas"] == 0
    assert gone["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] < 10
    assert groups(live)["shared"]["minReplicas"] == 2
    assert leaving(gone) == gone
