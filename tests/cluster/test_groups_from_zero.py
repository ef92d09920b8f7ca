"""Groups of GPU pods from nothing and back: scheduler, KubeRay and Ray's autoscaler are real, cards are not there."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.builders.kube import Kube
from tests.builders.pool_pods import group_of, heads, is_ready, node_of, workers
from tests.builders.release import Release
from tests.builders.up import echo, keys, pool, tenant

SHARED = {"name": "shared", "device": "cpu", "resource": "nvidia.com/gpu", "memory": "2Gi", "max": 2}
MIG = {"device": "cpu", "memory": "1Gi", "sharing": "mig", "max": 1}
GROUPS = (
    SHARED,
    {"name": "mig-1g10gb", "resource": "nvidia.com/mig-1g.10gb", **MIG},
    {"name": "mig-1g10gb-me", "resource": "nvidia.com/mig-1g.10gb.me", **MIG},
)
IDLE = {"idleAfter": "60s"}
SHARES = {
    "left": {"fraction": 0.4},
    "right": {"fraction": 0.5},
    "slice": {"mig": "1g.10gb"},
    "media": {"mig": "1g.10gb.me"},
}


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str], gpus: Callable[[dict[str, int]], None]):
    gpus({str(group["resource"]): 1 for group in GROUPS})
    namespaces("search")
    release.install({"defaultPool": {"enabled": False}})
    quick = pool(*GROUPS)
    quick["spec"]["idleAfter"] = "10s"
    kube.apply(keys("search"), tenant("search"), quick)
    kube.apply(*(echo(name, gpu=share, replicas=IDLE) for name, share in SHARES.items()))
    return release.reach()


def test_held_requests_bring_each_kind_of_pod_and_are_answered_and_idle_pods_go(
    installed: Release, kube: Kube, phases: Callable[[str], None]
):
    kube.until(lambda: any(is_ready(pod) for pod in heads(installed)), "the head is ready")
    phases("head and conductor ready")
    assert workers(installed) == [], "a pool that nobody uses has no workers"
    done = threading.Semaphore(0)

    def ask(name: str) -> str:
        text = installed.text("search", name, "one two three")
        done.release()
        return text

    with ThreadPoolExecutor(len(SHARES)) as asking:
        answers = {name: asking.submit(ask, name) for name in SHARES}
        kube.until(lambda: len(workers(installed)) == len(GROUPS), "a pod of each group")
        assert sorted(map(group_of, workers(installed))) == sorted(str(group["name"]) for group in GROUPS)
        phases("pods there")
        for number in range(len(SHARES)):
            assert done.acquire(timeout=300), f"{number} answers\n{kube.story()}"
            phases(f"answer {number + 1}")
        assert all("one two three" in answer.result() for answer in answers.values())
    check_places(installed)
    kube.until(lambda: workers(installed) == [], "idle pods are gone", limit_s=240)
    phases("idle pods gone")
    assert installed.text("search", "left", "again") != ""
    phases("first pod again")


def check_places(installed: Release) -> None:
    """Both fractions are in the one pod of `shared`; every pod holds one unit of its group's resource."""
    for pod in workers(installed):
        resource = next(str(group["resource"]) for group in GROUPS if group["name"] == group_of(pod))
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert {name: count for name, count in limits.items() if "nvidia.com" in name} == {resource: "1"}
        assert node_of(pod)
    installed.kube.until(
        lambda: device(installed, "left") == device(installed, "right") != "", "both fractions are of one device"
    )


def device(installed: Release, name: str) -> str:
    """Of its engine; empty while the status has none."""
    placements = installed.model(name, "search").get("status", {}).get("placements", [])
    return str(placements[0]["device"]) if placements else ""
