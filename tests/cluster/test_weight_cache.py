"""Models of a hub in a cluster: sidecars and agents keep them on nodes' disks, and engines start from there.

The hub is a fake one beside the tests, which speaks the real protocol; everything else is real.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub
from tests.builders.kube import Kube, Object, condition, namespace
from tests.builders.pool_pods import is_ready, node_of, workers
from tests.builders.release import NAMESPACE, Release
from tests.builders.up import keys, model, pool, tenant

from cotenant_cache.contract import BLOCK_BYTES

MIB = 2**20
WHO = "search"
DEMO = Path(__file__).parents[2] / "serving" / "cotenant_serving" / "demo_models" / "chat"
SHARE = {"memory": "1536Mi"}
FOLDER = "/mnt/cotenant-test-models"
POD_FOLDER = "/var/lib/cotenant/models"
AGENTS = "app.kubernetes.io/component=cache"
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}


@pytest.fixture(scope="module")
def hub(release: Release) -> Iterator[FakeHub]:
    fake = FakeHub(host=release.settings.hub_host())
    fake.put("demo/chat", {path.name: path.read_bytes() for path in DEMO.iterdir() if path.is_file()})
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, hub: FakeHub, namespaces: Callable[[str], str]) -> Release:
    namespaces(WHO)
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(keys(WHO), tenant(WHO), caching_pool(hub))
    return release.reach()


def caching_pool(hub: FakeHub, **cache: Any) -> Object:
    found = pool({"name": "cpu", "device": "cpu", "memory": "2Gi", "max": 1})
    found["spec"] |= {"idleAfter": "10s", "cache": {"size": "1Ti", "hub": {"endpoint": hub.url}, **cache}}
    return found


def chat(name: str = "chat", repo: str = "demo/chat") -> Object:
    return model(name, model=f"hf://{repo}", gpu=SHARE, engine={"contextTokens": 512}, replicas={"idleAfter": "10s"})


def answered(installed: Release) -> str:
    def tried() -> str:
        status, answer = installed.chat(WHO, "chat", "What is cotenant and who is it for?", temperature=0)
        if status in (404, 503):  # gateways hear of a new model, and of a new pool, within seconds
            return ""
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    return str(installed.kube.until(tried, "gateways know the model"))


def cached(installed: Release, name: str = "chat") -> tuple[str, str, str]:
    found = condition(installed.model(name, WHO), "Cached")
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def listed(kube: Kube, pod: Object, folder: str = FOLDER) -> dict[str, Object]:
    """Repository → what that pod's cache says of its model."""
    command = ("exec", pod["metadata"]["name"], "-n", NAMESPACE, "-c", "cache", "--")
    said = kube.kubectl(*command, "cotenant", "cache", "ls", "-o", "json", "--root", folder)
    return {one["repo"]: one for one in json.loads(said)}


def test_a_model_of_a_hub_is_fetched_once_by_the_sidecar_and_served_from_its_volume(
    installed: Release, kube: Kube, hub: FakeHub, phases: Callable[[str], None]
):
    kube.apply(chat())
    assert "many tenants and many models" in answered(installed)
    phases("answer, from no pod and a hub")
    [worker] = workers(installed)
    size = sum(len(path.read_bytes()) for path in DEMO.glob("*.safetensors"))
    assert size <= hub.sent["demo/chat", "model.safetensors"] < size + MIB, "once, and its header to plan with"
    assert listed(kube, worker, POD_FOLDER)["demo/chat"]["leases"] == 1, "the engine's"
    kube.until(lambda: cached(installed)[:2] == ("True", "OnDisk"), "Cached says so")
    phases("Cached")
    assert "on 1 of 1 node" in cached(installed)[2]
    said = kube.kubectl(
        *("exec", worker["metadata"]["name"], "-n", NAMESPACE, "-c", "ray-worker", "--", "sh", "-c"),
        f"touch {POD_FOLDER}/written 2>&1; true",
    )
    assert "Read-only file system" in said, "only cache instances write"


def test_a_sidecar_that_was_killed_comes_back_and_its_engine_has_its_lease_again(installed: Release, kube: Kube):
    answered(installed)
    [worker] = workers(installed)
    name = worker["metadata"]["name"]
    kube.kubectl("exec", name, "-n", NAMESPACE, "-c", "cache", "--", "sh", "-c", "kill -9 1; kill 1", check=False)

    def restarted() -> bool:
        statuses = kube.get("Pod", name, NAMESPACE)["status"].get("initContainerStatuses", [])
        return any(one["name"] == "cache" and one["restartCount"] >= 1 and one.get("ready") for one in statuses)

    kube.until(restarted, "the sidecar was started again")
    kube.until(lambda: listed(kube, worker, POD_FOLDER)["demo/chat"].get("leases") == 1, "the lease is back")
    assert answered(installed) != ""


# ---- a folder on nodes, and agents


@pytest.fixture(scope="module")
def on_nodes(installed: Release, kube: Kube, hub: FakeHub) -> Release:
    """The pool rolls to a folder that its nodes have, for user 1000, in a namespace that allows hostPath."""
    kube.apply(namespace(NAMESPACE, **{"cotenant-tests": "true", **PRIVILEGED}))
    image = installed.pods(AGENTS.replace("cache", "operator"))[0]["spec"]["containers"][0]["image"]
    for number, node in enumerate(sorted(one["metadata"]["name"] for one in kube.objects("Node"))):
        make_folder(kube, f"folder-{number}", node, image)
    kube.apply(caching_pool(hub, path=FOLDER, size="200Mi"))
    kube.until(lambda: len(agents(installed)) == len(kube.objects("Node")), "an agent on each node", limit_s=240)
    return installed


def make_folder(kube: Kube, name: str, node: str, image: str) -> None:
    """Empty, and of user 1000."""
    command = "rm -rf /f/* /f/.cotenant && chown 1000:1000 /f && chmod 755 /f"
    container = {
        "name": "it",
        "image": image,
        "command": ["sh", "-c", command],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "f", "mountPath": "/f"}],
    }
    volume = {"name": "f", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}
    spec = {"nodeName": node, "restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
    kube.until(lambda: kube.get("Pod", name, NAMESPACE)["status"].get("phase") == "Succeeded", f"{node} has a folder")
    kube.delete("Pod", name, NAMESPACE)


def agents(installed: Release) -> dict[str, Object]:
    """Node → its agent, of those that are ready."""
    return {node_of(pod): pod for pod in installed.pods(AGENTS) if is_ready(pod)}


@pytest.mark.full_only
def test_nodes_without_a_worker_pod_are_preloaded_and_wake_the_model_with_the_hub_switched_off(
    on_nodes: Release, kube: Kube, hub: FakeHub, phases: Callable[[str], None]
):
    count = len(agents(on_nodes))
    kube.until(lambda: f"on {count} of {count} nodes" in cached(on_nodes)[2], "all nodes have it", limit_s=300)
    phases("on all nodes")
    kube.until(lambda: workers(on_nodes) == [], "no worker pod is left", limit_s=240)
    hub.down = True
    try:
        assert "many tenants and many models" in answered(on_nodes)
        phases("answer, with the hub switched off")
    finally:
        hub.heal()


@pytest.mark.full_only
def test_a_node_gets_a_model_from_another_one_with_the_hub_switched_off(
    on_nodes: Release, kube: Kube, hub: FakeHub, phases: Callable[[str], None]
):
    node, agent = sorted(agents(on_nodes).items())[-1]
    kube.until(lambda: workers(on_nodes) == [], "nobody uses it", limit_s=240)
    hub.down = True
    try:
        command = ("exec", agent["metadata"]["name"], "-n", NAMESPACE, "-c", "cache", "--", "cotenant", "cache")
        fetched = fetched_from_peers(kube, agent)
        kube.kubectl(*command, "evict", "hf://demo/chat", "--yes", "--root", FOLDER)
        kube.until(  # its agent looks every minute, and may have it again before we look
            lambda: listed(kube, agent).get("demo/chat", {}).get("verified"), f"{node} has it again", limit_s=180
        )
        assert fetched_from_peers(kube, agent) > fetched
        phases("fetched from a peer")
    finally:
        hub.heal()


def fetched_from_peers(kube: Kube, pod: Object) -> float:
    """Bytes, since that instance began."""
    read = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8790/metrics').read().decode())"
    said = kube.kubectl("exec", pod["metadata"]["name"], "-n", NAMESPACE, "-c", "cache", "--", "python", "-c", read)
    name = 'cotenant_cache_fetched_bytes_total{from="peer"}'
    return sum(float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith(name))


@pytest.mark.full_only
def test_a_node_that_crashed_while_it_fetched_goes_on_where_it_stopped_and_serves_no_wrong_byte(
    on_nodes: Release, kube: Kube, hub: FakeHub, phases: Callable[[str], None]
):
    on_nodes.settings.needs("node-crash", "node-start")
    files = model_files(60 * MIB)
    hub.put("org/large", files)
    kube.apply(caching_pool(hub, path=FOLDER, size="200Mi", downloadRate="2Mi"))
    kube.until(lambda: len(agents(on_nodes)) == len(kube.objects("Node")), "agents are back", limit_s=240)
    kube.apply(chat("large", "org/large"))
    node = sorted(agents(on_nodes))[-1]
    kube.until(lambda: hub.sent["org/large", "model.safetensors"] > 16 * MIB, "it is being fetched", limit_s=180)
    on_nodes.settings.command("node-crash", node=node)
    phases("crashed")
    on_nodes.settings.command("node-start", node=node)
    count = len(kube.objects("Node"))
    kube.until(lambda: f"on {count} of {count} nodes" in cached(on_nodes, "large")[2], "it came", limit_s=400)
    phases("on all nodes")
    size = len(files["model.safetensors"])
    assert hub.sent["org/large", "model.safetensors"] <= count * size + count * 2 * BLOCK_BYTES
    for pod in agents(on_nodes).values():
        command = ("exec", pod["metadata"]["name"], "-n", NAMESPACE, "-c", "cache", "--", "cotenant", "cache")
        kube.kubectl(*command, "verify", "--root", FOLDER)


@pytest.mark.full_only
def test_the_budget_is_kept_while_three_models_compete_and_who_has_no_room_is_told(
    on_nodes: Release, kube: Kube, hub: FakeHub
):
    kube.delete("ModelDeployment", "large", WHO)
    budget = 150 * MIB
    kube.apply(caching_pool(hub, path=FOLDER, size="150Mi"))
    nodes = {one["metadata"]["name"] for one in kube.objects("Node")}

    def all_keep_to_it() -> bool:
        running = agents(on_nodes)
        told = [json.dumps(pod["spec"]) for pod in (*running.values(), *workers(on_nodes))]
        return running.keys() == nodes and all(f"--budget={budget}" in spec for spec in told)

    kube.until(all_keep_to_it, "every agent and sidecar was told", limit_s=240)
    for name in ("x", "y", "z"):
        hub.put(f"org/{name}", model_files(60 * MIB, seed=ord(name)))
        kube.apply(chat(name, f"org/{name}"))
    looked: set[str] = set()

    def refused() -> list[str]:
        for node, pod in agents(on_nodes).items():
            bytes_used = used(kube, pod)
            if bytes_used is not None:
                assert bytes_used <= budget + BLOCK_BYTES, node
                looked.add(node)
        return [name for name in ("x", "y", "z") if cached(on_nodes, name)[1] == "CacheFull"]

    kube.until(lambda: refused() and looked == nodes, "one has no room, and every node was looked at", limit_s=300)
    assert "of the budget of" in cached(on_nodes, refused()[0])[2]


def used(kube: Kube, pod: Object) -> int | None:
    """Bytes of its volume; None while the pod cannot be asked."""
    command = ("exec", pod["metadata"]["name"], "-n", NAMESPACE, "-c", "cache", "--", "cotenant", "cache")
    said = kube.kubectl(*command, "du", "-o", "json", "--root", FOLDER, check=False)
    return int(json.loads(said)["used_bytes"]) if said.startswith("{") else None
