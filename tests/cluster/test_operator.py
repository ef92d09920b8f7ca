"""What the operator makes, keeps, leaves alone and takes away, against the real API server and its garbage collector.

The chart is installed without its programs; the operator runs outside, as `test_operator_kills` has it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.api_proxy import ApiProxy
from tests.builders.kube import Kube, condition
from tests.builders.operator_process import OperatorProcess, forget_lease
from tests.builders.release import NAMESPACE, Release, remove_objects
from tests.builders.up import echo, pool

CPU = {"name": "cpu", "device": "cpu", "memory": "2Gi", "max": 1}
OURS = "app.kubernetes.io/managed-by=cotenant"


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    namespaces("search")
    release.install({"defaultPool": {"enabled": False}})
    release.scale_programs(0)
    for kind in ("GPUPool", "Tenant", "ModelDeployment"):
        kube.until(lambda: kube.objects(kind) == [], f"{kind}s are served")  # noqa: B023
    return release


@pytest.fixture
def operator(installed: Release, kube: Kube, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts one with these settings, in a cluster without objects of ours."""
    remove_objects(kube)
    kube.delete("ConfigMap", "cotenant-made", NAMESPACE)
    made: list[OperatorProcess] = []
    with ApiProxy(kube.port) as proxy:

        def start(**settings: Any) -> OperatorProcess:
            for one in made:
                one.kill()
            forget_lease(kube)
            made.append(OperatorProcess(tmp_path, kube, proxy, str(len(made)), **settings).start())
            return made[-1]

        yield start
        for one in made:
            one.kill()
    remove_objects(kube)


def test_a_cluster_without_a_pool_gets_one_once(kube: Kube, operator: Callable[..., OperatorProcess]):
    operator().quiet()
    assert kube.get("GPUPool", "default")["spec"]["workers"][0]["device"] == "cpu"
    kube.delete("GPUPool", "default")
    kube.gone("GPUPool", "default")
    operator().quiet()
    assert kube.objects("GPUPool") == [], "its owner does not want it"
    kube.delete("ConfigMap", "cotenant-made", NAMESPACE)
    operator().quiet()
    assert [one["metadata"]["name"] for one in kube.objects("GPUPool")] == ["default"]


def test_a_pool_that_is_deleted_leaves_nothing_behind(kube: Kube, operator: Callable[..., OperatorProcess]):
    kube.apply(pool(CPU), echo("left"))
    process = operator(defaultPool={"enabled": False})
    process.quiet()
    assert len(kube.objects("RayCluster", NAMESPACE)) == 1
    for one in (*kube.objects("GPUPool"), *kube.objects("ModelDeployment")):
        assert "finalizers" not in one["metadata"]
    kube.delete("GPUPool", "default")
    for kind in ("RayCluster", "Service", "NetworkPolicy"):
        kube.until(lambda: not kube.objects(kind, NAMESPACE, OURS), f"no {kind} is left")  # noqa: B023
    process.quiet()
    accepted = condition(kube.get("ModelDeployment", "left", "search"), "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PoolNotFound")


def test_fields_of_other_managers_are_left_alone(kube: Kube, operator: Callable[..., OperatorProcess]):
    kube.apply(pool(CPU), echo("left"))
    process = operator(defaultPool={"enabled": False}, timeouts={"resync": "2s"})
    process.quiet()
    (cluster,) = kube.objects("RayCluster", NAMESPACE)
    name = cluster["metadata"]["name"]
    kube.patch("RayCluster", name, NAMESPACE, {"metadata": {"annotations": {"team.example/owner": "search"}}})
    kube.patch("RayCluster", name, NAMESPACE, {"metadata": {"labels": {"cotenant.dev/pool": "stolen"}}})
    kube.until(
        lambda: kube.get("RayCluster", name, NAMESPACE)["metadata"]["labels"]["cotenant.dev/pool"] == "default",
        "our label is put right",
        explain=process.said,
    )
    process.quiet()
    assert kube.get("RayCluster", name, NAMESPACE)["metadata"]["annotations"]["team.example/owner"] == "search"


def test_what_the_api_server_refuses_stands_in_the_pools_condition(
    kube: Kube, operator: Callable[..., OperatorProcess]
):
    broken = {"spec": {"containers": [{"name": "ray-worker", "terminationMessagePolicy": 7}]}}
    kube.apply(pool({**CPU, "podTemplate": broken}))
    process = operator(defaultPool={"enabled": False})

    def said() -> str:
        found = condition(kube.get("GPUPool", "default"), "Ready")
        return found.get("message", "") if "refuses RayCluster" in found.get("message", "") else ""

    message = kube.until(said, "the condition says what was refused", explain=process.said)
    assert "terminationMessagePolicy" in message
    kube.apply(pool(CPU))
    kube.until(lambda: kube.objects("RayCluster", NAMESPACE), "repaired, it is made", explain=process.said)
