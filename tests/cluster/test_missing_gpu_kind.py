"""A kind of GPU that no node has: the model says so, and is ready by itself once a node has it."""

from collections.abc import Callable

import pytest
from tests.builders.kube import Kube, condition
from tests.builders.release import Release
from tests.builders.up import echo, keys, pool, tenant

pytestmark = pytest.mark.full_only
RESOURCE = "nvidia.com/mig-3g.40gb"
GROUP = {"name": "mig-3g40gb", "device": "cpu", "resource": RESOURCE, "memory": "1Gi", "sharing": "mig", "max": 1}


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    namespaces("search")
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(keys("search"), tenant("search"), pool(GROUP))
    kube.apply(echo("needs", gpu={"mig": "3g.40gb"}, replicas={"min": 1}))
    return release.reach()


def test_a_model_whose_kind_of_gpu_no_node_has_says_so_and_is_ready_once_a_node_has_it(
    installed: Release, kube: Kube, gpus: Callable[[dict[str, int]], None], phases: Callable[[str], None]
):
    def refused() -> bool:
        placed = condition(installed.model("needs", "search"), "Placed")
        return placed.get("status") == "False" and RESOURCE in placed["message"]

    kube.until(refused, f"Placed=False names {RESOURCE}", limit_s=240)
    phases("Placed=False")
    found = installed.model("needs", "search")
    assert condition(found, "Accepted")["status"] == "True"
    assert condition(found, "Ready")["status"] == "False"
    assert condition(found, "Ready")["reason"] == condition(found, "Placed")["reason"]
    print(condition(found, "Placed"))
    gpus({RESOURCE: 1})
    kube.until(lambda: installed.settled("needs", "search"), "it is ready by itself", limit_s=300)
    phases("Ready after a node had one")
    assert "one two" in installed.text("search", "needs", "one two")
