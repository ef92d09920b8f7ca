"""A weight cache that cannot use its volume says so to the conductor, which tells the operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from tests.builders.conductor import desired, model, pod
from tests.builders.ports import free_port

from cotenant_cache.errors import CacheError, NewerFormatError, VolumeError
from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.conductor.caches import Caches
from cotenant_serving.conductor.conductor import Conductor, Settings
from cotenant_serving.conductor.store import Store
from cotenant_serving.contract import NodeWeights, PoolStatus
from cotenant_serving.inner_api import server_of
from cotenant_serving.weight_cache.opening import Closed

HOST = "127.0.0.1"
SOURCE = f"hf://org/chat@{'a' * 40}"
WHY = "/models: Permission denied; let this user write below /models, or use another folder"


@asynccontextmanager
async def closed(error: CacheError, node: str) -> AsyncIterator[int]:
    """Its port."""
    port = free_port()
    server = server_of(Closed(error, lambda: "pool-token", node), HOST, port, graceful_s=1)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await task


async def heard(caches: Caches) -> list[NodeCache]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await caches.ask(session, [HOST])
    return list(caches.known().values())


def conductor(folder: Path, *caches: NodeCache) -> Conductor:
    settings = Settings(url="http://127.0.0.1:1", pool_token_file="pool-token")
    made = Conductor(
        Store(folder), settings, caches=lambda: {pod(number).node: cache for number, cache in enumerate(caches)}
    )
    made.set_desired(desired(model(source=SOURCE, weights=8)))
    return made


def status(folder: Path, *caches: NodeCache) -> PoolStatus:
    return msgspec.json.decode(msgspec.json.encode(conductor(folder, *caches).status()), type=PoolStatus)


async def test_the_operator_reads_which_node_has_a_volume_that_cannot_be_used_and_why(tmp_path: Path) -> None:
    async with closed(VolumeError(WHY), "node-3") as port:
        (broken,) = await heard(Caches(port, lambda: "pool-token"))
    good = NodeCache(frozenset({SOURCE}), "node-1", here={SOURCE: 8})

    assert status(tmp_path, good, broken).weights == (
        NodeWeights(node="node-1", here={SOURCE: 8}),
        NodeWeights(node="node-3", problem=("VolumeUnusable", WHY)),
    )


async def test_a_node_whose_one_cache_is_older_than_its_volume_is_one_node_with_a_problem(tmp_path: Path) -> None:
    async with closed(NewerFormatError("format 3"), "node-1") as port:
        (older,) = await heard(Caches(port, lambda: "pool-token"))
    newer = NodeCache(frozenset({SOURCE}), "node-1", here={SOURCE: 8})

    assert status(tmp_path, older, newer).weights == (
        NodeWeights(node="node-1", here={SOURCE: 8}, problem=("NewerFormat", "format 3")),
    )


async def test_placement_knows_which_node_has_a_volume_that_cannot_be_used(tmp_path: Path) -> None:
    good, broken = NodeCache(frozenset({SOURCE})), NodeCache(node="node-3", problem=("VolumeUnusable", WHY))
    made = conductor(tmp_path, good, broken)

    seen = made._world(made.desired)
    assert (seen.caches, seen.unusable_caches) == ({pod(0).node: good}, {pod(1).node: broken})


async def test_what_a_cache_that_cannot_be_used_says_is_bounded() -> None:
    async with closed(VolumeError("x" * 10_000), "node-3") as port:
        (broken,) = await heard(Caches(port, lambda: "pool-token"))

    assert broken.problem is not None
    assert len(broken.problem[1]) == 500


async def test_without_the_token_nothing_is_told() -> None:
    async with closed(VolumeError(WHY), "node-3") as port:
        assert await heard(Caches(port, lambda: "another")) == []
