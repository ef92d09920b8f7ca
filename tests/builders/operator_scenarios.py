"""What happens while no operator runs, and operators that are killed after their n-th API call when they look at it.

Nothing but the operator may write meanwhile: KubeRay is stopped. Every run of a scenario starts from the same
objects; `picture` (operator_process.py) is what must be equal in the end.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.builders.api_proxy import Call
from tests.builders.kube import Kube, Object
from tests.builders.operator_process import OperatorProcess, differences, picture
from tests.builders.release import NAMESPACE, remove_objects
from tests.builders.up import echo, keys, pool, tenant

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
PAUSE_S = 0.05
"""Between two looks: there are hundreds of runs."""
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
    Scenario("a model is added", applied(echo("new"))),
    Scenario("a model is edited", applied(echo("left", concurrency=3, replicas={"min": 1}))),
    Scenario("a model is deleted", deleted("ModelDeployment", "left", "search")),
    Scenario("limits are edited", applied(tenant("search", limits={"requestsPerMinute": 7}))),
    Scenario("a tenant is deleted", deleted("Tenant", "ads")),
    Scenario("a key is revoked", applied(tenant("ads", keys=[]))),
    Scenario("a group is added and one grows", applied(pool({**GROUP, "max": 3}, {**GROUP, "name": "more"}))),
    Scenario("a group's pods change", applied(pool({**GROUP, "nodeSelector": {"disk": "fast"}}))),
    Scenario("others spoil what is ours", spoiled),
)


def undisturbed(kube: Kube, operator: OperatorProcess, scenario: Scenario) -> "Undisturbed":
    """One run of a scenario in which nothing is killed. What stands afterwards stays so."""
    reset(kube, operator)
    if scenario.before:
        kube.apply(*scenario.before)
        operator.renew().quiet()
    before = picture(kube)
    operator.kill()
    scenario.act(kube)
    operator.proxy.calls.clear()
    operator.renew().quiet()
    return Undisturbed(before, picture(kube), tuple(operator.proxy.calls))


@dataclass(frozen=True)
class Undisturbed:
    before: dict[str, Object]
    after: dict[str, Object]
    calls: tuple[Call, ...]
    """From the start of the operator that finds what was done to its becoming quiet."""


def run_and_kill(
    kube: Kube, operator: OperatorProcess, scenario: Scenario, wanted: Undisturbed, kill_after: int
) -> None:
    """The same with an operator that is killed after so many calls, and another one."""
    reset(kube, operator)
    if scenario.before:
        kube.apply(*scenario.before)
        settled(kube, operator.renew(), wanted.before, f"{scenario.name}: as before it")
    operator.kill()
    scenario.act(kube)
    operator.proxy.after(kill_after, operator.kill)
    operator.renew()
    kube.until(lambda: not operator.alive, f"its call {kill_after} comes", pause_s=PAUSE_S, explain=operator.said)
    assert operator.returncode == -signal.SIGKILL, f"it ended by itself: {operator.said()}"
    call = wanted.calls[kill_after - 1]
    settled(kube, operator.renew(), wanted.after, f"{scenario.name}, killed after call {kill_after} ({call})")


def settled(kube: Kube, operator: OperatorProcess, wanted: dict[str, Object], what: str) -> None:
    """As an operator leaves it that has looked at everything itself: the one before it may have done it all."""
    kube.until(
        lambda: operator.looked() and not differences(picture(kube), wanted),
        what,
        pause_s=PAUSE_S,
        explain=lambda: "\n".join([*differences(picture(kube), wanted), operator.said()]),
    )


def reset(kube: Kube, operator: OperatorProcess) -> None:
    """To nothing, from whatever is there. What the operator made goes with what it was made for."""
    operator.kill()
    remove_objects(kube)
    for kind in ("RayCluster", "Service"):
        kube.until(
            lambda: not kube.objects(kind, NAMESPACE, "cotenant.dev/pool"),  # noqa: B023
            f"{kind}s of pools are gone",
            pause_s=PAUSE_S,
        )
    for name in ("cotenant-tokens", "cotenant-gateway"):
        kube.delete("Secret", name, NAMESPACE)
