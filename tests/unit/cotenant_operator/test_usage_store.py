"""Usage of gateways in ConfigMaps: each batch once, whichever replica gets it, however often, whoever writes too."""

import asyncio

import msgspec
import pytest
from tests.builders.config_maps import ConfigMaps

from cotenant_operator.usage_store import UsageStore, UsageStoreError
from cotenant_serving.contract_usage import UsageBatch, UsageTotal

DAY = "2026-11-26"


def batch(gateway: str = "one", sequence: int = 1, requests: int = 5) -> UsageBatch:
    total = UsageTotal(day=DAY, tenant="search", model="a/b", outcome="ok", requests=requests, first=1.0, last=2.0)
    return UsageBatch(gateway=gateway, boot="boot", sequence=sequence, totals=(total,))


async def test_a_batch_is_kept_with_labels_by_which_it_is_found() -> None:
    store = ConfigMaps()
    await UsageStore(store, "ours").add(batch())
    (item,) = store.maps.values()
    assert item["metadata"]["name"] == f"cotenant-usage-{DAY}"
    assert item["metadata"]["labels"]["cotenant.dev/usage"] == "true"
    assert store.requests() == 5


async def test_a_batch_that_comes_again_counts_once_at_any_replica() -> None:
    store = ConfigMaps()
    for _ in range(3):
        await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5


async def test_replicas_that_write_at_once_lose_nothing() -> None:
    store = ConfigMaps()
    replicas = [UsageStore(store, "ours") for _ in range(3)]
    await asyncio.gather(
        *(replicas[number % 3].add(batch(gateway=f"gateway-{number}", requests=number)) for number in range(12))
    )
    assert store.requests() == sum(range(12))


async def test_what_cannot_be_kept_is_said_so_that_it_is_sent_again() -> None:
    store = ConfigMaps()
    store.down = True
    with pytest.raises(UsageStoreError, match="cannot be kept now"):
        await UsageStore(store, "ours").add(batch())
    store.down = False
    await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5
    assert msgspec.json.decode(store.maps[f"cotenant-usage-{DAY}"]["data"]["sequences"]) == {"one/boot": 1}


async def test_an_api_server_that_does_not_answer_lets_no_batches_pile_up() -> None:
    store = ConfigMaps()
    store.answers.clear()
    usage = UsageStore(store, "ours", limit_s=0.05)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*(usage.add(batch()) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {UsageStoreError}
    store.answers.set()
    await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5
