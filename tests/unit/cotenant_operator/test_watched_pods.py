"""Which pods the operator follows: all of a pool, those of its node agents too, and no other ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.builders.operator import pool, worker

from cotenant_operator.caches import Caches
from cotenant_operator.cluster import Event, Listing
from cotenant_operator.kinds import PODS, Kind
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.cache_parts import render_agent
from cotenant_operator.render.raycluster import render_raycluster

SETTINGS = OperatorSettings()
POOL = pool(worker("cpu", device="cpu", memory="8Gi"), cache={"path": "/models"})


class Listed:
    """Has one pod, and tells by which labels pods were asked for."""

    def __init__(self, pod: dict[str, Any]) -> None:
        self._pod, self.labels = pod, ""

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "") -> Listing:
        if kind is not PODS:
            return Listing([], "1")
        self.labels = labels
        return Listing([self._pod], "1")

    async def watch(self, kind: Kind, namespace: str = "", **_: Any) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield Event("BOOKMARK", {})


class Concerned:
    def __init__(self) -> None:
        self.pools: set[str] = set()

    def pool_changed(self, name: str) -> None:
        self.pools.add(name)

    def plan_changed(self) -> None: ...

    def every_pool_changed(self) -> None: ...

    def gateways_changed(self) -> None: ...


def templates() -> dict[str, dict[str, Any]]:
    cluster = render_raycluster(POOL, SETTINGS, "default-1a2b3c4d", uid="u")["spec"]
    return {
        "head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
        "agent": render_agent(POOL, SETTINGS, uid="u")["spec"]["template"],
    }


@pytest.mark.parametrize("role", ["head", "worker", "agent"])
async def test_a_change_of_any_pod_of_a_pool_is_a_look_at_the_pool(role: str) -> None:
    labels = templates()[role]["metadata"]["labels"]
    metadata = {"name": "pod", "namespace": SETTINGS.namespace, "uid": "u", "resourceVersion": "1", "labels": labels}
    source, concerned = Listed({"metadata": metadata}), Concerned()
    caches = Caches(source, SETTINGS, lambda: concerned)
    following = asyncio.create_task(caches.run())
    async with asyncio.timeout(60):
        while not caches.pods.synced:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert source.labels in labels, "it would not be among those that were asked for"
    assert concerned.pools == {"default"}
