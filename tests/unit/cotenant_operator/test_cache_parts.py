"""What stands beside a pool's pods for its weight caches: preload list, Service, policy, agents of nodes."""

import json
from typing import Any

from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.cache_parts import (
    render_agent,
    render_cache_policy,
    render_peers,
    render_preload,
    sidecar,
)
from cotenant_operator.spec import GPUPool
from cotenant_serving.contract import Desired, DesiredModel, EngineSpec

SETTINGS = OperatorSettings()
WORKER: dict[str, Any] = {"name": "gpu", "device": "cuda", "resource": "nvidia.com/gpu", "memory": "80Gi"}


def pool(*workers: dict[str, Any], **spec: Any) -> GPUPool:
    return GPUPool.model_validate({"metadata": {"name": "default"}, "spec": {"workers": workers, **spec}})


def desired(*models: DesiredModel) -> Desired:
    return Desired(pool="default", generation=1, models=models)


def model(name: str, source: str, **more: Any) -> DesiredModel:
    engine = EngineSpec(model=name, revision="r", task="generate", source=source, candidates=(), device="cuda")
    return DesiredModel(name=name, engine=engine, **more)


def listed(*models: DesiredModel) -> list[dict[str, Any]]:
    made = render_preload(pool(WORKER), SETTINGS, desired(*models), uid="u")
    found: list[dict[str, Any]] = json.loads(made["data"]["preload.json"]).get("items", [])
    return found


def test_models_of_which_an_engine_is_kept_are_preloaded_first_and_each_source_once() -> None:
    found = listed(
        model("a/cold", "hf://org/x@c"),
        model("a/folder", "file:///models/x"),
        model("a/warm", "hf://org/y@c", min_engines=1),
        model("b/same", "hf://org/x@c", min_engines=2),
        DesiredModel(name="a/refused", message="does not fit"),
    )
    assert found == [{"source": "hf://org/x@c", "priority": 1}, {"source": "hf://org/y@c", "priority": 1}]
    assert listed() == []


def test_the_list_stays_the_same_text_whatever_the_order_of_the_models() -> None:
    one, other = model("a/one", "hf://org/x@c"), model("a/other", "hf://org/y@c")
    assert listed(one, other) == listed(other, one)


def test_all_caches_of_a_pool_have_one_name_and_only_its_own_pods_reach_them() -> None:
    service = render_peers(pool(WORKER), SETTINGS, uid="u")
    policy = render_cache_policy(pool(WORKER), SETTINGS, uid="u")
    agent = render_agent(pool(WORKER, cache={"path": "/models"}), SETTINGS, uid="u")
    assert service["spec"]["clusterIP"] == "None"
    labels = agent["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"cotenant.dev/pool": "default"}}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8790}]
    assert {item["metadata"]["name"] for item in (service, policy, agent)} == {"cotenant-cache-default"}


def test_an_agent_is_restricted_and_has_no_socket() -> None:
    spec = render_agent(pool(WORKER, cache={"path": "/models"}), SETTINGS, uid="u")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not any(word.startswith("--socket") for word in container["command"])
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_containers_environment_names_the_hub_and_where_its_token_is_for_commands_in_it() -> None:
    def hub_names(made: dict[str, Any]) -> dict[str, str]:
        return {item["name"]: item["value"] for item in made["env"] if item["name"].startswith("HF_")}

    mirror = {"endpoint": "https://mirror.example", "secretRef": {"name": "hub", "key": "read"}}
    of_a_mirror = pool(WORKER, cache={"path": "/models", "hub": mirror})
    (agent,) = render_agent(of_a_mirror, SETTINGS, uid="u")["spec"]["template"]["spec"]["containers"]
    for made in (agent, sidecar(of_a_mirror, SETTINGS)):
        assert hub_names(made) == {"HF_ENDPOINT": "https://mirror.example", "HF_TOKEN_PATH": "/etc/cotenant/hub/read"}
        assert "--hub-token-file=/etc/cotenant/hub/read" in made["command"]
    assert hub_names(sidecar(pool(WORKER), SETTINGS)) == {"HF_ENDPOINT": "https://huggingface.co"}


def test_what_every_container_gets_changes_nothing_about_the_pools_hub_and_its_token() -> None:
    given = {
        "HF_ENDPOINT": "https://huggingface.co",
        "HF_TOKEN": "hf_other",
        "HUGGING_FACE_HUB_TOKEN": "hf_older",
        "HF_TOKEN_PATH": "/etc/other",
        "HTTPS_PROXY": "http://proxy.example",
    }
    settings = OperatorSettings(extra_env=tuple({"name": name, "value": value} for name, value in given.items()))

    def of(hub: dict[str, Any]) -> dict[str, str]:
        made = sidecar(pool(WORKER, cache={"hub": hub}), settings)
        return {item["name"]: item["value"] for item in made["env"] if item["name"] in given}

    mirror = "https://mirror.example"
    assert of({"endpoint": mirror, "secretRef": {"name": "hub", "key": "read"}}) == {
        "HF_ENDPOINT": mirror,
        "HF_TOKEN_PATH": "/etc/cotenant/hub/read",
        "HTTPS_PROXY": "http://proxy.example",
    }
    assert of({"endpoint": mirror}) == {**given, "HF_ENDPOINT": mirror}, "the instance, too, takes such a token then"
