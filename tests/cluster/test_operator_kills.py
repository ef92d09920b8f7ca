"""The operator killed after each of its API calls, against the real API server: it always ends where it would have.

KubeRay is stopped meanwhile, so that nothing but the operator writes. Every run of a scenario starts from the same
objects; `picture` is what must be equal in the end.
"""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.builders.api_proxy import ApiProxy
from tests.builders.kube import Kube, Object, condition
from tests.builders.operator_process import OperatorProcess, differences, forget_lease, picture
from tests.builders.pool_pods import is_ready
from tests.builders.release import NAMESPACE, Release, remove_objects
from tests.builders.up import echo, keys, pool, tenant

QUICK_EVERY = 5
KILLS_WITH_KUBERAY = 20
GROUP = {"name": "cpu", "device": "cpu", "memory": "2Gi", "max": 1}
BEFORE: tuple[Object, ...] = (
    keys("search", "ads"),
    tenant("search"),
    tenant("ads"),
    pool(GROUP),
    echo("left"),
    echo("right"),
    echo("far", namespace="ads"),
)
Act = Callable[[Kube], Any]


@dataclass(frozen=True)
class Scenario:
    """`act` is done while no operator runs; `before` is what stands there, and is settled, by then."""

    name: str
    act: Act
    before: tuple[Object, ...] = BEFORE


def applied(*objects: Object) -> Act:
    return lambda kube: kube.apply(*objects)


def deleted(kind: str, name: str, namespace: str = "") -> Act:
    return lambda kube: (kube.delete(kind, name, namespace), kube.gone(kind, name, namespace))


def spoiled(kube: Kube) -> None:
    """What is ours is edited and deleted by somebody else."""
    for service in kube.objects("Service", NAMESPACE, "cotenant.dev/pool"):
        kube.delete("Service", service["metadata"]["name"], NAMESPACE)
    for cluster in kube.objects("RayCluster", NAMESPACE):
        spec = {"workerGroupSpecs": [{**group, "maxReplicas": 7} for group in cluster["spec"]["workerGroupSpecs"]]}
        kube.patch("RayCluster", cluster["metadata"]["name"], NAMESPACE, {"spec": spec})


SCENARIOS = (
    Scenario("everything is new", applied(*BEFORE), before=()),
    Scenario("a model is added", applied(echo("new", gpu={"memory": "64Mi"}))),
    Scenario("a model is edited", applied(echo("left", concurrency=3, replicas={"min": 1}))),
    Scenario("a model is deleted", deleted("ModelDeployment", "left", "search")),
    Scenario("limits are edited", applied(tenant("search", limits={"requestsPerMinute": 7}))),
    Scenario("a tenant is deleted", deleted("Tenant", "ads")),
    Scenario("a key is revoked", applied(tenant("ads", keys=[]))),
    Scenario("a group is added and one grows", applied(pool({**GROUP, "max": 3}, {**GROUP, "name": "more"}))),
    Scenario("a group's pods change", applied(pool({**GROUP, "nodeSelector": {"disk": "fast"}}))),
    Scenario("others spoil what is ours", spoiled),
)


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Iterator[Release]:
    """The chart without its programs: operators run outside, where they can be killed to the call."""
    release.settings.needs("kuberay-stop", "kuberay-start")
    for name in ("search", "ads"):
        namespaces(name)
    release.install({"defaultPool": {"enabled": False}})
    try:
        release.settings.command("kuberay-stop")
        release.scale_programs(0)
        yield release
    finally:
        release.settings.command("kuberay-start")


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


QUICK = ("everything is new", "a group's pods change", "others spoil what is ours")


def scenarios() -> list[Any]:
    return [
        pytest.param(one, id=one.name, marks=[] if one.name in QUICK else [pytest.mark.full_only])
        for one in SCENARIOS
    ]


@pytest.mark.parametrize("scenario", scenarios())
def test_an_operator_killed_after_any_of_its_calls_ends_where_it_would_have(
    installed: Release, kube: Kube, operators: Callable[..., OperatorProcess], scenario: Scenario, pytestconfig
):
    operator = operators()
    run(kube, operator, scenario, kill_after=None)
    undisturbed, calls = picture(kube), len(operator.proxy.calls)
    step = 1 if pytestconfig.getoption("--full") else QUICK_EVERY
    killed = list(range(1, calls + 1, step))
    for number in killed:
        run(kube, operator, scenario, kill_after=number)
        wrong = differences(picture(kube), undisturbed)
        assert not wrong, f"killed after call {number} ({operator.proxy.calls[number - 1]}): " + "\n".join(wrong)
    print(f"{scenario.name}: killed after {len(killed)} of {calls} calls")


def run(kube: Kube, operator: OperatorProcess, scenario: Scenario, *, kill_after: int | None) -> None:
    """To the scenario's beginning, its act, an operator that is killed, and one that is not."""
    reset(kube, operator, scenario.before)
    scenario.act(kube)
    operator.proxy.calls.clear()
    forget_lease(kube)
    if kill_after is not None:
        operator.proxy.after(kill_after, operator.kill)
        operator.start()
        kube.until(lambda: not operator.alive, f"its call {kill_after} comes", explain=operator.said)
        assert operator.returncode == -signal.SIGKILL, f"it ended by itself: {operator.said()}"
        forget_lease(kube)
    operator.start().quiet()
    operator.kill()


def reset(kube: Kube, operator: OperatorProcess, before: tuple[Object, ...]) -> None:
    """From whatever is there. What the operator made goes with what it was made for."""
    remove_objects(kube)
    for kind in ("RayCluster", "Service"):
        kube.until(
            lambda: not kube.objects(kind, NAMESPACE, "cotenant.dev/pool"),  # noqa: B023
            f"{kind}s of pools are gone",
        )
    for name in ("cotenant-tokens", "cotenant-gateway"):
        kube.delete("Secret", name, NAMESPACE)
    if before:
        kube.apply(*before)
        forget_lease(kube)
        operator.start().quiet()
        operator.kill()


def test_of_two_operators_one_writes_and_the_other_goes_on_when_it_stops(
    installed: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    reset(kube, operators("before"), BEFORE)
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
    installed: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    operator = operators()
    reset(kube, operator, BEFORE)
    before = picture(kube)
    operator.proxy.calls.clear()
    forget_lease(kube)
    operator.start().quiet()
    assert differences(picture(kube), before) == []
    paths = [f"{call.method} {call.path}" for call in operator.proxy.writes]
    assert not paths, "a new operator finds everything as it should be, and yet: " + "\n".join(paths)


def test_edits_of_others_are_corrected_and_their_own_fields_are_left_alone(
    installed: Release, kube: Kube, operators: Callable[..., OperatorProcess]
):
    operator = operators()
    reset(kube, operator, BEFORE)
    forget_lease(kube)
    operator.start().quiet()
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


def verdict(kube: Kube, name: str) -> bool:
    return bool(condition(kube.get("ModelDeployment", name, "search"), "Accepted"))


@pytest.mark.full_only
def test_with_kuberay_an_operator_that_dies_at_random_moments_always_converges(installed: Release, kube: Kube):
    """The last of this file: KubeRay and the operators of the chart are back from here on."""
    remove_objects(kube)
    installed.settings.command("kuberay-start")
    installed.scale_programs(2)
    kube.apply(*BEFORE)
    rng = random.Random(7)
    for number in range(KILLS_WITH_KUBERAY):
        kube.apply(echo("left", concurrency=2 + number, replicas={"min": 1, "max": 1 + number % 2}))
        time.sleep(rng.uniform(0, 3))
        for pod in installed.pods("app.kubernetes.io/component=operator"):
            kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace_s=0)
        kube.until(lambda: installed.settled("left", "search"), f"left is ready after kill {number + 1}", limit_s=300)
    assert len(kube.objects("RayCluster", NAMESPACE)) == 1
    pods = installed.pods("ray.io/node-type=head")
    assert len(pods) == 1
    assert is_ready(pods[0])
