"""What happens while no operator runs, and operators that are killed after their n-th API call when they look at it.

Nothing but the operator may write meanwhile: KubeRay is stopped. Every run of a scenario starts from the same
objects; `picture` (operator_process.py) is what must be equal in the end.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.builders.kube import Kube, Object
from tests.builders.operator_process import OperatorProcess, forget_lease
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
