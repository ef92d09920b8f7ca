"""What the operator makes, keeps, leaves alone and takes away, against the real API server and its garbage collector.

The chart is installed without its programs: operators run outside, where they can be killed to the call. From the
kills on KubeRay is stopped, so that nothing but the operator writes.
"""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.api_proxy import ApiProxy
from tests.builders.kube import Kube, condition
from tests.builders.operator_process import OperatorProcess, differences, forget_lease, picture
from tests.builders.operator_scenarios import BEFORE, GROUP, SCENARIOS, Scenario, reset, run_and_kill, undisturbed
from tests.builders.pool_pods import is_ready
from tests.builders.release import NAMESPACE, Release, remove_objects, until_served
from tests.builders.up import echo, pool

QUICK = "everything is new"
"""The scenario that runs without `--full`, killed after each so-manyth call."""
QUICK_EVERY = 10
KILLS_WITH_KUBERAY = 20
OURS = "app.kubernetes.io/managed-by=cotenant"


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    for name in ("search", "ads"):
        namespaces(name)
    release.install({"defaultPool": {"enabled": False}})
    release.scale_programs(0)
    until_served(kube)
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
    kube.apply(pool(GROUP), echo("left"))
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
    kube.apply(pool(GROUP), echo("left"))
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
    kube.apply(pool({**GROUP, "podTemplate": broken}))
    process = operator(defaultPool={"enabled": False})

    def said() -> str:
        found = condition(kube.get("GPUPool", "default"), "Ready")
        return found.get("message", "") if "refuses RayCluster" in found.get("message", "") else ""

    message = kube.until(said, "the condition says what was refused", explain=process.said)
    assert "terminationMessagePolicy" in message
    kube.apply(pool(GROUP))
    kube.until(lambda: kube.objects("RayCluster", NAMESPACE), "repaired, it is made", explain=process.said)


@pytest.fixture(scope="module")
def without_kuberay(installed: Release) -> Iterator[Release]:
    installed.settings.needs("kuberay-stop", "kuberay-start")
    try:
        installed.settings.command("kuberay-stop")
        yield installed
    finally:
        installed.settings.command("kuberay-start")


@pytest.fixture
def operators(kube: Kube, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operators, each with a proxy of its own."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "one") -> OperatorProcess:
            proxy = stack.enter_context(ApiProxy(kube.port))
            made = OperatorProcess(tmp_path, kube, proxy, name, defaultPool={"enabled": False})
            stack.callback(made.kill)
            return made

        yield make


def scenarios() -> list[Any]:
    return [
        pytest.param(one, id=one.name, marks=[] if one.name == QUICK else [pytest.mark.full_only])
        for one in SCENARIOS
    ]


@pytest.mark.parametrize("scenario", scenarios())
def test_an_operator_killed_after_any_of_its_calls_ends_where_it_would_have(
    without_kuberay: Release, kube: Kube, operators: Callable[..., OperatorProcess], scenario: Scenario, pytestconfig
):
    operator = operators()
    wanted = undisturbed(kube, operator, scenario)
    step = 1 if pytestconfig.getoption("--full") else QUICK_EVERY
    killed = range(1, len(wanted.calls) + 1, step)
    for number in killed:
        run_and_kill(kube, operator, scenario, wanted, number)
    operator.quiet()
    assert differences(picture(kube), wanted.after) == [], "after the last kill, and once nothing more is written"
    print(f"{scenario.name}: killed after {len(killed)} of {len(wanted.calls)} calls")


def test_of_two_operators_one_writes_and_the_other_goes_on_when_it_stops(
    without_kuberay: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    begin(kube, operators("before"))
    forget_lease(kube)
    one, two = operators("one").start(), operators("two").start()
    kube.until(lambda: one.leads() or two.leads(), "one leads")
    leader, other = (one, two) if one.leads() else (two, one)
    kube.apply(echo("new"))
    leader.quiet()
    assert verdict(kube, "new")
    assert other.proxy.writes == []
    leader.signal(signal.SIGSTOP)
    kube.until(other.leads, "the other leads", explain=other.said)
    kube.apply(echo("newer"))
    other.quiet()
    assert verdict(kube, "newer")
    before = len(leader.proxy.writes)
    leader.signal(signal.SIGCONT)
    kube.apply(echo("newest"))
    kube.until(lambda: verdict(kube, "newest"), "the newest has a verdict")
    other.quiet()
    assert leader.proxy.writes[before:] == [], "a leader that slept through its lease writes nothing"


def test_an_operator_that_has_nothing_to_do_writes_nothing(
    without_kuberay: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    operator = operators()
    begin(kube, operator)
    before = picture(kube)
    operator.proxy.calls.clear()
    operator.renew().quiet()
    assert differences(picture(kube), before) == []
    paths = [f"{call.method} {call.path}" for call in operator.proxy.writes]
    assert not paths, "a new operator finds everything as it should be, and yet: " + "\n".join(paths)


@pytest.mark.full_only
def test_edits_of_others_are_corrected_and_their_own_fields_are_left_alone(
    without_kuberay: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    operator = operators()
    begin(kube, operator)
    operator.renew().quiet()
    cluster = kube.objects("RayCluster", NAMESPACE)[0]
    name = cluster["metadata"]["name"]
    wanted = picture(kube)
    mine = {"metadata": {"labels": {"team": "blue"}, "annotations": {"example.com/note": "mine"}}}
    kube.patch("RayCluster", name, NAMESPACE, mine)
    service = kube.objects("Service", NAMESPACE, "cotenant.dev/pool")[0]["metadata"]["name"]
    kube.patch("Service", service, NAMESPACE, {"spec": {"selector": {"nobody": "x"}}, **mine})
    spoiled_groups = [{**group, "maxReplicas": 7} for group in cluster["spec"]["workerGroupSpecs"]]
    kube.patch("RayCluster", name, NAMESPACE, {"spec": {"workerGroupSpecs": spoiled_groups}})

    def corrected() -> bool:
        groups = kube.get("RayCluster", name, NAMESPACE)["spec"]["workerGroupSpecs"]
        return [group["maxReplicas"] for group in groups] == [1]

    kube.until(corrected, "the RayCluster is corrected", explain=operator.said)
    operator.quiet()
    found = picture(kube)
    for key in (f"RayCluster {NAMESPACE}/{name}", f"Service {NAMESPACE}/{service}"):
        metadata = found[key]["metadata"]
        assert metadata["labels"].pop("team") == "blue", key
        assert metadata["annotations"].pop("example.com/note") == "mine", key
    assert differences(found, wanted) == []


def begin(kube: Kube, operator: OperatorProcess) -> None:
    """The objects that are there before a scenario, settled by an operator that is no more."""
    reset(kube, operator)
    kube.apply(*BEFORE)
    operator.renew().quiet()
    operator.kill()


def verdict(kube: Kube, name: str) -> bool:
    return bool(condition(kube.get("ModelDeployment", name, "search"), "Accepted"))


@pytest.mark.full_only
def test_with_kuberay_an_operator_that_dies_at_random_moments_always_converges(without_kuberay: Release, kube: Kube):
    """The last of this file: KubeRay and the operators of the chart are back from here on."""
    remove_objects(kube)
    without_kuberay.settings.command("kuberay-start")
    without_kuberay.scale_programs(2)
    kube.apply(*BEFORE)
    rng = random.Random(7)
    for number in range(KILLS_WITH_KUBERAY):
        kube.apply(echo("left", concurrency=2 + number, replicas={"min": 1, "max": 1 + number % 2}))
        time.sleep(rng.uniform(0, 3))
        for pod in without_kuberay.pods("app.kubernetes.io/component=operator"):
            kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace_s=0)
        kube.until(
            lambda: without_kuberay.settled("left", "search"), f"left is ready after kill {number + 1}", limit_s=300
        )
    assert len(kube.objects("RayCluster", NAMESPACE)) == 1
    pods = without_kuberay.pods("ray.io/node-type=head")
    assert len(pods) == 1
    assert is_ready(pods[0])
