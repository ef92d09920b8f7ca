"""What is lost without warning: a node, the head's pod, the API server. What goes on, and how long the rest takes."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.builders.calls import key_of
from tests.builders.kube import Kube, Object, condition
from tests.builders.load import Load, echo_chats
from tests.builders.pool_pods import heads, is_ready, node_of, workers
from tests.builders.redis_server import start_redis
from tests.builders.release import GATEWAY, NAMESPACE, Release
from tests.builders.up import echo, keys, pool, tenant

pytestmark = pytest.mark.full_only
RESOURCE = "nvidia.com/gpu"
WHO = "search"
OUTAGE_S = 120
SETTLED_S = 70.0
"""After a crash, clients have given up every connection to the node: none waits longer for an answer (load.py)."""
GATEWAYS = "app.kubernetes.io/component=gateway"
GATEWAY_PORT = 8080
GROUP = {"name": "shared", "device": "cpu", "resource": RESOURCE, "memory": "1Gi", "max": 2, "min": 2}


def spread_pool(**head: Any) -> Object:
    """A device on each node, so that two engines of a model are on two nodes."""
    found = pool(GROUP)
    found["spec"]["head"] = head
    return found


@pytest.fixture(scope="module")
def installed(
    release: Release, kube: Kube, namespaces: Callable[[str], str], gpus: Callable[[Mapping[str, int]], None]
) -> Release:
    gpus({RESOURCE: 1})
    namespaces(WHO)
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(keys(WHO), tenant(WHO), spread_pool())
    kube.apply(echo("twice", gpu={"memory": "600Mi"}, replicas={"min": 2, "max": 2}, tokensPerSecond=20))
    release.reach()
    kube.until(lambda: ready(kube) == 2, "two engines are ready", limit_s=400)
    if not release.direct:
        pytest.skip("a port-forward ends with its pod: this test runs inside the cluster's network")
    return release


@pytest.fixture
def started(installed: Release, tmp_path: Path) -> Iterator[Load]:
    """A load that runs; the test stops it, and judges what became of it."""
    scenario = echo_chats(installed.url, WHO, ["twice"], rate_per_s=3.0, seed=1, duration_s=3600)
    with Load(scenario, {WHO: key_of(WHO)}, tmp_path) as load:
        installed.kube.until(lambda: load.succeeded > 10, "answers come")
        yield load


def ready(kube: Kube) -> int:
    status = kube.get("ModelDeployment", "twice", WHO).get("status", {})
    return int(status.get("replicas", {}).get("ready", 0))


def test_traffic_goes_on_while_the_api_server_is_away(installed: Release, kube: Kube, started: Load):
    settings = installed.settings
    settings.needs("api-server-stop", "api-server-start")
    settings.command("api-server-stop")
    try:
        time.sleep(OUTAGE_S)  # nothing to wait for: what is tested is that nothing happens
    finally:
        settings.command("api-server-start")
    kube.until(lambda: kube.get("Namespace", NAMESPACE), "the API server answers")
    enough = started.succeeded + 10
    kube.until(lambda: started.succeeded > enough, "answers still come")
    started.stop()
    print(f"{len(started.records)} requests in an outage of {OUTAGE_S} s: {dict(started.outcomes)}")
    assert started.wrong("ok") == []
    kube.apply(echo("after"))
    kube.until(lambda: condition(kube.get("ModelDeployment", "after", WHO), "Accepted"), "the operator is at work")
    kube.until(lambda: ready(kube) == 2, "the status is true again")
    kube.delete("ModelDeployment", "after", WHO)


def test_what_a_lost_node_had_not_begun_is_answered_by_the_other(
    installed: Release, kube: Kube, started: Load, tmp_path: Path, phases: Callable[[str], None]
):
    """The node with the head stays. `started` goes through the Service: the lost gateway takes some of it."""
    installed.settings.needs("node-crash", "node-start")
    head = node_of(heads(installed)[0])
    lost = next((node_of(pod) for pod in workers(installed) if node_of(pod) != head), "")
    assert lost, "an engine is on a node without the head"
    stays = next(pod for pod in installed.pods(GATEWAYS) if node_of(pod) != lost)
    url = f"http://{stays['status']['podIP']}:{GATEWAY_PORT}"
    there = Load(
        echo_chats(url, WHO, ["twice"], rate_per_s=3.0, seed=3, duration_s=3600),
        {WHO: key_of(WHO)},
        folder(tmp_path, "there"),
    )
    with there:
        kube.until(lambda: there.succeeded > 10, "answers come from the gateway that stays")
        installed.settings.command("node-crash", node=lost)
        crashed_unix_s = time.time()
        phases("node crashed")
        try:
            kube.until(lambda: ready(kube) == 1, "the status says that an engine is lost", limit_s=200)
            phases("status")
            kube.until(lambda: len(installed.endpoints(GATEWAY)) == 1, "its gateway is out of the Service")
            phases("the Service is without its gateway")
            before = started.succeeded, there.succeeded
            kube.until(
                lambda: started.succeeded > before[0] + 20 and there.succeeded > before[1] + 20,
                "answers come from the other node",
            )
            phases("20 more answers of the other node, each way")
        finally:
            installed.settings.command("node-start", node=lost)
        kube.until(lambda: ready(kube) == 2, "both engines are back", limit_s=400)
        phases("both engines back")
        kube.until(lambda: time.time() > crashed_unix_s + SETTLED_S, "what hung has been given up")
        enough = started.succeeded + 20
        kube.until(lambda: started.succeeded > enough, "answers still come")
    started.stop()
    print(f"gateway that stays: {dict(there.outcomes)}; Service: {dict(started.outcomes)}")
    # An engine of the lost node may have begun an answer: that stream ends with an error event.
    assert there.wrong("ok", "error_event") == []
    # Whatever the lost gateway had accepted has no end at all: nobody says that it is gone.
    assert set(started.outcomes) <= {"ok", "error_event", "timeout", "connect", "reset", "cut_short"}
    late_us = (crashed_unix_s + SETTLED_S - started.began_unix_s) * 1e6
    recovered = [one for one in started.records if one.scheduled_us > late_us]
    assert {one.outcome for one in recovered} == {"ok"}


def test_with_redis_warm_models_answer_while_the_head_is_lost(
    installed: Release, kube: Kube, tmp_path: Path, redis: str, phases: Callable[[str], None]
):
    scenario = echo_chats(installed.url, WHO, ["twice"], rate_per_s=3.0, seed=2, duration_s=3600)
    with Load(scenario, {WHO: key_of(WHO)}, tmp_path) as load:
        kube.until(lambda: load.succeeded > 10, "answers come")
        kube.apply(spread_pool(redis={"address": redis}))
        kube.until(
            lambda: len(kube.objects("RayCluster", NAMESPACE)) == 1 and with_redis(kube),
            "the pool has rolled",
            limit_s=600,
        )
        kube.until(lambda: ready(kube) == 2, "both engines are ready", limit_s=300)
        phases("pool with Redis, every device taken while it rolled")
        engines = both(kube)
        lose_head(installed, kube)
        phases("another head and conductor ready")
        kube.until(lambda: conductor(kube) == "True" and ready(kube) == 2, "the status is true again")
        enough = load.succeeded + 10
        kube.until(lambda: load.succeeded > enough, "answers still come")
    print(f"{len(load.records)} requests: {dict(load.outcomes)}")
    assert load.wrong("ok") == []
    assert instances(kube) == engines, "the engines never noticed"


def test_without_redis_the_loss_of_the_head_is_told_truly_and_heals(
    installed: Release, kube: Kube, phases: Callable[[str], None]
):
    kube.apply(spread_pool())
    kube.until(
        lambda: len(kube.objects("RayCluster", NAMESPACE)) == 1 and not with_redis(kube),
        "the pool has rolled",
        limit_s=600,
    )
    kube.until(lambda: conductor(kube) == "True" and ready(kube) == 2, "both engines are ready", limit_s=300)
    phases("pool without Redis")
    engines = both(kube)
    lost = heads(installed)[0]["metadata"]["name"]
    kube.delete("Pod", lost, NAMESPACE, grace_s=0)
    # The new head may be there before anybody has missed the old one; the engines that end with it are missed.
    kube.until(lambda: conductor(kube) in ("False", "Unknown") or ready(kube) < 2, "the status says it", pause_s=0.1)
    phases("condition")

    def renewed() -> bool:
        found = instances(kube)
        return len(found) == 2 and found.isdisjoint(engines)

    kube.until(
        lambda: conductor(kube) == "True" and ready(kube) == 2 and renewed(), "new engines answer", limit_s=400
    )
    phases("recovered")
    assert "one two" in installed.text(WHO, "twice", "one two")


def folder(above: Path, name: str) -> Path:
    made = above / name
    made.mkdir()
    return made


def lose_head(installed: Release, kube: Kube) -> None:
    lost = heads(installed)[0]["metadata"]["name"]
    kube.delete("Pod", lost, NAMESPACE, grace_s=0)
    kube.until(
        lambda: any(is_ready(pod) and pod["metadata"]["name"] != lost for pod in heads(installed)),
        "another head is ready",
        limit_s=240,
    )


def with_redis(kube: Kube) -> bool:
    return "gcsFaultToleranceOptions" in kube.objects("RayCluster", NAMESPACE)[0]["spec"]


def conductor(kube: Kube) -> str:
    """Does it answer? True, False or Unknown, as the pool says."""
    return str(condition(kube.get("GPUPool", "default"), "ConductorReady").get("status", ""))


def instances(kube: Kube) -> set[str]:
    """Each engine with the container that it is in: names of engines and of pods are used again."""
    placements = kube.get("ModelDeployment", "twice", WHO)["status"].get("placements", [])
    placed = {one["engine"]: one["pod"] for one in placements if one["state"] == "ready"}
    pods = {engine: kube.get("Pod", pod, NAMESPACE)["status"] for engine, pod in placed.items()}
    return {f"{engine} in {pod['containerStatuses'][0].get('containerID')}" for engine, pod in pods.items()}


def both(kube: Kube) -> set[str]:
    """The two engines, once none of an earlier RayCluster is told of any more."""

    def found() -> set[str]:
        seen = instances(kube)
        return seen if len(seen) == 2 else set()

    return set(kube.until(found, "two engines are in pods that are there"))


@pytest.fixture
def redis(installed: Release, kube: Kube) -> str:
    """host:port of a Redis in the release's namespace; it goes with it."""
    return start_redis(kube, installed.settings.redis)
