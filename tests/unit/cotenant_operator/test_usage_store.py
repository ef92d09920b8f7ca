"""Usage of gateways in ConfigMaps: each batch once, whichever replica gets it, however often, whoever writes too."""

import asyncio
import copy

import msgspec
import pytest

from cotenant_operator.cluster_errors import ConflictError, NotFoundError, UnreachableError
from cotenant_operator.kinds import Kind, Object
from cotenant_operator.usage_ledger import usage_of
from cotenant_operator.usage_store import UsageStore, UsageStoreError
from cotenant_serving.contract_usage import UsageBatch, UsageTotal

DAY = "2026-11-26"


class Store:
    """ConfigMaps as an API server keeps them."""

    def __init__(self) -> None:
        self.maps: dict[str, Object] = {}
        self.down = False
        self.answers = asyncio.Event()
        self.answers.set()
        self._version = 0

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.down:
            raise UnreachableError("no answer")
        if name not in self.maps:
            raise NotFoundError(name, status=404)
        return copy.deepcopy(self.maps[name])

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        if item["metadata"]["name"] in self.maps:
            raise ConflictError("exists", status=409)
        return self._keep(item)

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = 10.0) -> Object:
        await asyncio.sleep(0)
        if item["metadata"]["resourceVersion"] != self.maps[item["metadata"]["name"]]["metadata"]["resourceVersion"]:
            raise ConflictError("changed", status=409)
        return self._keep(item)

    def _keep(self, item: Object) -> Object:
        self._version += 1
        kept = copy.deepcopy(item)
        kept["metadata"]["resourceVersion"] = str(self._version)
        self.maps[item["metadata"]["name"]] = kept
        return kept

    def requests(self) -> int:
        return usage_of([item["data"] for item in self.maps.values()], ["tenant"], None).total.requests


def batch(gateway: str = "one", sequence: int = 1, requests: int = 5) -> UsageBatch:
    total = UsageTotal(day=DAY, tenant="search", model="a/b", outcome="ok", requests=requests, first=1.0, last=2.0)
    return UsageBatch(gateway=gateway, boot="boot", sequence=sequence, totals=(total,))


async def test_a_batch_is_kept_with_labels_by_which_it_is_found() -> None:
    store = Store()
    await UsageStore(store, "ours").add(batch())
    (item,) = store.maps.values()
    assert item["metadata"]["name"] == f"cotenant-usage-{DAY}"
    assert item["metadata"]["labels"]["cotenant.dev/usage"] == "true"
    assert store.requests() == 5


async def test_a_batch_that_comes_again_counts_once_at_any_replica() -> None:
    store = Store()
    for _ in range(3):
        await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5


async def test_replicas_that_write_at_once_lose_nothing() -> None:
    store = Store()
    replicas = [UsageStore(store, "ours") for _ in range(3)]
    await asyncio.gather(
        *(replicas[number % 3].add(batch(gateway=f"gateway-{number}", requests=number)) for number in range(12))
    )
    assert store.requests() == sum(range(12))


async def test_what_cannot_be_kept_is_said_so_that_it_is_sent_again() -> None:
    store = Store()
    store.down = True
    with pytest.raises(UsageStoreError, match="cannot be kept now"):
        await UsageStore(store, "ours").add(batch())
    store.down = False
    await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5
    assert msgspec.json.decode(store.maps[f"cotenant-usage-{DAY}"]["data"]["sequences"]) == {"one/boot": 1}


async def test_an_api_server_that_does_not_answer_lets_no_batches_pile_up() -> None:
    store = Store()
    store.answers.clear()
    usage = UsageStore(store, "ours", limit_s=0.05)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*(usage.add(batch()) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {UsageStoreError}
    store.answers.set()
    await UsageStore(store, "ours").add(batch())
    assert store.requests() == 5
