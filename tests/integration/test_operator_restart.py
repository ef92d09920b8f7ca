"""Whole operators, one after another, on a cluster in memory: what a new one knows while the hub is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.builders.operator import facts
from tests.builders.small_cluster import SmallCluster
from tests.builders.watched_api import deployment

from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.source import HubAccess
from cotenant_operator import controller, planner
from cotenant_operator.controller import Operator
from cotenant_operator.dated import condition
from cotenant_operator.facts_book import Facts
from cotenant_operator.kinds import CONFIG_MAPS, MODELS, POOLS, Object
from cotenant_operator.operator_settings import OperatorSettings

PRELOAD, FACTS = ("cotenant-system", "cotenant-cache-default"), ("cotenant-system", "cotenant-facts-default")


class Hub:
    """Has every model, at the commit of now."""

    def __init__(self) -> None:
        self.down, self.commit = False, "1" * 40

    def __call__(self, source: str, cache_dir: str, access: HubAccess) -> Facts:
        if self.down:
            return HubUnreachableError(f"{source}: the hub does not answer")
        repo, _, commit = source.partition("@")
        return facts(source=f"{repo}@{commit or self.commit}", fingerprint=commit or self.commit)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(controller, "known_facts", found)
    monkeypatch.setattr(planner, "FIRST_S", 60.0)  # this machine may be slow
    return found


@asynccontextmanager
async def operator(cluster: Any) -> AsyncIterator[None]:
    """One that runs, and gives its Lease back at the end."""
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(Operator(cluster, session, OperatorSettings()).run("127.0.0.1", 0))
        try:
            yield
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.02)


def cluster_with(*names: str) -> SmallCluster:
    cluster = SmallCluster()
    workers = [{"name": "cpu", "device": "cpu", "memory": "16Gi"}]
    cluster.put(POOLS, POOLS.new("default", spec={"namespaces": ["*"], "workers": workers}))
    for name in names:
        cluster.put(MODELS, hub_model(name))
    return cluster


def hub_model(name: str) -> Object:
    item = deployment(name, 1)
    item["spec"] = {"model": f"hf://org/{name}", "pool": "default"}
    return item


def accepted(cluster: SmallCluster, name: str) -> str:
    said = condition(cluster.all(MODELS)["default", name].get("status"), "Accepted")
    return str(said.get("reason", ""))


def source(cluster: SmallCluster, name: str) -> str:
    return str(cluster.all(MODELS)["default", name]["status"].get("source"))


async def test_a_new_operator_without_a_hub_keeps_all_as_it_is_and_tells_new_models_what_they_wait_for(
    hub: Hub,
) -> None:
    cluster = cluster_with("small")
    async with operator(cluster):
        await until(lambda: FACTS in cluster.all(CONFIG_MAPS) and accepted(cluster, "small") == "Fits")
    before = {key: cluster.all(CONFIG_MAPS)[key]["metadata"]["resourceVersion"] for key in (PRELOAD, FACTS)}

    hub.down = True
    cluster.written.clear()
    cluster.put(MODELS, hub_model("late"))
    async with operator(cluster):
        await until(lambda: accepted(cluster, "late") == "HubUnreachable")
    assert accepted(cluster, "small") == "Fits"
    assert {key: cluster.all(CONFIG_MAPS)[key]["metadata"]["resourceVersion"] for key in (PRELOAD, FACTS)} == before
    said = [item["status"] for kind, item in cluster.written if kind == MODELS.kind and _is(item, "small")]
    assert {condition(status, "Accepted")["reason"] for status in said} <= {"Fits"}, "at no moment"


async def test_a_branch_that_moved_moves_no_model_although_nothing_was_kept_and_the_hub_was_away(hub: Hub) -> None:
    cluster = cluster_with("small")
    async with operator(cluster):
        await until(lambda: FACTS in cluster.all(CONFIG_MAPS) and accepted(cluster, "small") == "Fits")
    pinned = source(cluster, "small")
    del cluster.all(CONFIG_MAPS)[FACTS]

    hub.down, hub.commit = True, "2" * 40
    async with operator(cluster):
        await until(lambda: accepted(cluster, "small") == "HubUnreachable")
    hub.down = False
    async with operator(cluster):
        await until(lambda: accepted(cluster, "small") == "Fits")
    assert source(cluster, "small") == pinned == f"hf://org/small@{'1' * 40}"


async def test_a_model_that_goes_takes_what_was_kept_of_it_along(hub: Hub) -> None:
    cluster = cluster_with("small", "other")
    async with operator(cluster):
        await until(lambda: FACTS in cluster.all(CONFIG_MAPS) and accepted(cluster, "other") == "Fits")
        for name in ("small", "other"):
            await cluster.delete(MODELS, name, "default")
        await until(lambda: FACTS not in cluster.all(CONFIG_MAPS))


def _is(item: Object, name: str) -> bool:
    return bool(item["metadata"]["name"] == name)
