"""Groups of GPU pods from nothing and back: scheduler, KubeRay and Ray's autoscaler are real, cards are not there."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.builders.kube import Kube
from tests.builders.pool_pods import group_of, heads, is_ready, node_of, workers
from tests.builders.release import Release
from tests.builders.up import echo, keys, pool, tenant

pytestmark = pytest.mark.full_only
SHARED = {"name": "shared", "device": "cpu", "resource": "nvidia.com/gpu", "memory": "2Gi", "max": 2}
MIG = {"device": "cpu", "memory": "1Gi", "sharing": "mig", "max": 1}
GROUPS = (
    SHARED,
    {"name": "mig-1g10gb", "resource": "nvidia.com/mig-1g.10gb", **MIG},
    {"name": "mig-1g10gb-me", "resource": "nvidia.com/mig-1g.10gb.me", **MIG},
)
IDLE = {"idleAfter": "90s"}
LARGE = {"allocate": "300Mi", "replicas": IDLE}
"""So that neither fraction of a slice would do: engines of these run in `shared` alone."""
MODELS = (
    echo("left", gpu={"fraction": 0.4}, **LARGE),
    echo("right", gpu={"fraction": 0.5}, **LARGE),
    echo("slice", gpu={"mig": "1g.10gb"}, replicas=IDLE),
    echo("media", gpu={"mig": "1g.10gb.me"}, replicas=IDLE),
)


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str], gpus: Callable[[dict[str, int]], None]):
    gpus({str(group["resource"]): 1 for group in GROUPS})
    namespaces("search")
    release.install({"defaultPool": {"enabled": False}})
    quick = pool(*GROUPS)
    quick["spec"]["idleAfter"] = "10s"
    kube.apply(keys("search"), tenant("search"), quick)
    kube.apply(*MODELS)
    return release.reach()


def test_held_requests_bring_each_kind_of_pod_and_are_answered_and_idle_pods_go(
    installed: Release, kube: Kube, phases: Callable[[str], None]
):
    kube.until(lambda: any(is_ready(pod) for pod in heads(installed)), "the head is ready", limit_s=300)
    phases("head and conductor ready")
    assert workers(installed) == [], "a pool that nobody uses has no workers"
    done = threading.Semaphore(0)

    def ask(name: str) -> str:
        text = installed.text("search", name, "one two three")
        done.release()
        return text

    names = [model["metadata"]["name"] for model in MODELS]
    with ThreadPoolExecutor(len(names)) as asking:
        answers = [asking.submit(ask, name) for name in names]
        kube.until(lambda: len(workers(installed)) == len(GROUPS), "a pod of each group")
        assert sorted(map(group_of, workers(installed))) == sorted(str(group["name"]) for group in GROUPS)
        phases("pods there")
        check_places(installed)
        phases("each in its place")
        for number in range(len(names)):
            assert done.acquire(timeout=300), f"{number} answers\n{kube.story()}"
            phases(f"answer {number + 1}")
        assert all("one two three" in answer.result() for answer in answers)
    kube.until(lambda: workers(installed) == [], "idle pods are gone", limit_s=240)
    phases("idle pods gone")
    assert installed.text("search", "left", "again") != ""
    phases("first pod again")


def check_places(installed: Release) -> None:
    """Both fractions get the one pod of `shared`; every pod holds one unit of its group's resource, on a node."""
    for pod in workers(installed):
        resource = next(str(group["resource"]) for group in GROUPS if group["name"] == group_of(pod))
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert {name: count for name, count in limits.items() if "nvidia.com" in name} == {resource: "1"}
    kube = installed.kube
    kube.until(lambda: all(map(node_of, workers(installed))), "every pod has a node")
    for name, group in (("left", "shared"), ("slice", "mig-1g10gb"), ("media", "mig-1g10gb-me")):
        kube.until(lambda: f"/{group}/" in device(installed, name), f"{name} is on {group}", limit_s=240)  # noqa: B023
    kube.until(lambda: device(installed, "left") == device(installed, "right") != "", "both fractions on one device")


def device(installed: Release, name: str) -> str:
    """Of its engine, `node/group/index`; empty while the status has none."""
    placements = installed.model(name, "search").get("status", {}).get("placements", [])
    return str(placements[0]["device"]) if placements else ""
