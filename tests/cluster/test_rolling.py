"""Whatever is changed, replaced or drained under a steady load: no request fails, and no stream ends early.

The load is the project's own load test: open loop, seeded, every word of every answer checked (builders/load.py).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.builders.calls import key_of
from tests.builders.kube import Kube, Object, advertise
from tests.builders.load import Load, echo_chats
from tests.builders.pool_pods import heads, is_ready, node_of, workers
from tests.builders.redis_server import start_redis
from tests.builders.release import NAMESPACE, Release
from tests.builders.up import echo, keys, pool, tenant

RATE_PER_S = 4.0
RESOURCE = "nvidia.com/gpu"
CHANGES = 30
WHO = "search"
MODELS = ("left", "right")
PACE = {"tokensPerSecond": 20}
"""Streams of 5 to 60 words take up to 3 s: each change meets some."""


def group(**more: Any) -> dict[str, Any]:
    return {"name": "shared", "device": "cpu", "resource": RESOURCE, "memory": "2Gi", "max": 2, **more}


def engine(name: str, *, least: int = 1, **fields: Any) -> Object:
    replicas = {"min": least, "max": 2, "idleAfter": "30s"}
    return echo(name, gpu={"memory": "256Mi"}, replicas=replicas, **{**PACE, **fields})


@pytest.fixture(scope="module")
def installed(
    release: Release, kube: Kube, namespaces: Callable[[str], str], gpus: Callable[[Mapping[str, int]], None]
) -> Release:
    gpus({RESOURCE: 2})
    namespaces(WHO)
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(keys(WHO, "ads"), tenant(WHO), pool(group()), *(engine(name) for name in MODELS))
    release.reach()
    for name in MODELS:
        kube.until(lambda: release.settled(name, WHO), f"{name} is ready", limit_s=300)  # noqa: B023
    if not release.direct:
        pytest.skip("a port-forward ends with its pod: this test runs inside the cluster's network")
    return release


@pytest.fixture
def load(installed: Release, tmp_path: Path) -> Iterator[Load]:
    """Runs during the test; afterwards nothing of it may have gone wrong."""
    scenario = echo_chats(installed.url, WHO, MODELS, rate_per_s=RATE_PER_S, seed=1, duration_s=3600)
    with Load(scenario, {WHO: key_of(WHO)}, tmp_path) as running:
        installed.kube.until(lambda: running.succeeded > 10, "answers come")
        yield running
        enough = running.succeeded + 10
        installed.kube.until(lambda: running.succeeded > enough, "answers still come")
    print(f"{len(running.records)} requests: {dict(running.outcomes)}")
    assert running.wrong("ok") == []


def test_changes_of_revisions_replicas_limits_and_tenants(
    installed: Release, kube: Kube, load: Load, size: Callable[[int], int]
):
    pods = names(installed)
    for change in itertools.islice(itertools.cycle(changes()), size(CHANGES)):
        change(kube)
        for name in MODELS:
            kube.until(lambda: installed.settled(name, WHO), f"{name} is as desired", limit_s=120)  # noqa: B023
    assert names(installed) == pods, "none of these changes replaces a pod"


def changes() -> list[Callable[[Kube], object]]:
    """Six: each kind of change once and back."""
    return [
        lambda kube: kube.apply(engine("left", concurrency=6)),
        lambda kube: kube.apply(engine("right", least=2)),
        lambda kube: kube.apply(tenant(WHO, limits={"requestsPerMinute": 100_000, "concurrentRequests": 500})),
        lambda kube: kube.apply(tenant("ads")),
        lambda kube: kube.apply(engine("left"), engine("right"), tenant(WHO)),
        lambda kube: (kube.delete("Tenant", "ads"), kube.gone("Tenant", "ads")),
    ]


@pytest.mark.full_only
def test_rollouts_of_the_gateways(installed: Release, kube: Kube, load: Load):
    for _ in range(3):
        kube.kubectl("rollout", "restart", "deployment/cotenant-gateway", "-n", NAMESPACE)
        kube.kubectl("rollout", "status", "deployment/cotenant-gateway", "-n", NAMESPACE, "--timeout=110s")


def test_a_pool_rolls_beside_itself_where_there_is_room(
    installed: Release, kube: Kube, load: Load, phases: Callable[[str], None]
):
    roll(installed, group(podTemplate=with_label("one")))
    phases("pool rolled, with room")


@pytest.mark.full_only
def test_a_pool_rolls_device_by_device_where_every_one_is_taken(
    installed: Release,
    kube: Kube,
    gpus: Callable[[Mapping[str, int]], None],
    phases: Callable[[str], None],
    load: Load,
):
    """As many devices in the cluster as the pool has: the new pods wait until the old ones go."""
    kube.apply(*(engine(name, least=2) for name in MODELS))
    for name in MODELS:
        kube.until(lambda: installed.settled(name, WHO), f"{name} has two engines", limit_s=300)  # noqa: B023
    taken: dict[str, int] = {}
    for pod in workers(installed):
        taken[node_of(pod)] = taken.get(node_of(pod), 0) + 1
    try:
        for node in {node_of(pod) for pod in installed.pods()} | set(taken):
            advertise(kube, node, {RESOURCE: taken.get(node, 0)})
        roll(installed, group(podTemplate=with_label("two")))
        phases("pool rolled, every device taken")
    finally:
        gpus({RESOURCE: 2})
    kube.apply(*(engine(name) for name in MODELS))


def with_label(value: str) -> Object:
    return {"metadata": {"labels": {"example.com/roll": value}}}


def roll(installed: Release, worker: Mapping[str, Any], **head: Any) -> None:
    kube = installed.kube
    old = [one["metadata"]["name"] for one in kube.objects("RayCluster", NAMESPACE)]
    assert len(old) == 1
    wanted = pool(dict(worker))
    wanted["spec"]["head"] = head
    kube.apply(wanted)

    def rolled() -> bool:
        clusters = [one["metadata"]["name"] for one in kube.objects("RayCluster", NAMESPACE)]
        return len(clusters) == 1 and clusters != old and all_settled(installed)

    kube.until(rolled, "the pool has rolled", limit_s=600)


@pytest.mark.full_only
def test_a_drain_of_each_node(installed: Release, kube: Kube, load: Load, phases: Callable[[str], None]):
    """With Redis, for the head's pod is on one of them: without, its engines would end with it."""
    nodes = [one["metadata"]["name"] for one in kube.objects("Node") if not one["spec"].get("unschedulable")]
    if len(nodes) < 2:
        pytest.skip("it takes two nodes to drain one")
    roll(installed, group(), redis={"address": start_redis(kube, installed.settings.redis)})
    phases("pool rolled to one with Redis")
    for node in nodes:
        try:
            drain = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=110s")
            # One that fails speaks of "nodes to be drained".
            done = f"node/{node} drained"
            kube.until(lambda: done in kube.kubectl(*drain, check=False), f"{node} is drained", limit_s=600)  # noqa: B023
            phases(f"{node} drained")
            kube.until(lambda: all_settled(installed), "the models are ready", limit_s=300)
            kube.until(lambda: any(is_ready(pod) for pod in heads(installed)), "a head is ready")
        finally:
            kube.kubectl("uncordon", node)


def all_settled(installed: Release) -> bool:
    return all(installed.settled(name, WHO) for name in MODELS)


def names(installed: Release) -> set[str]:
    return {pod["metadata"]["name"] for pod in [*heads(installed), *workers(installed)]}
