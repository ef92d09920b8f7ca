"""Waits of those who ask a sidecar: until when they said, and never in silence."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.builders.cache_nodes import CacheNodes
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.contract import Progress
from cotenant_cache.shelving import Leased
from cotenant_serving.weight_cache.api import CacheApi
from cotenant_serving.weight_cache.node import CacheNode

pytestmark = pytest.mark.integration
DEADLINE_S = 30.0
COMMIT = "c0ffee" * 6 + "beef"


def test_who_says_how_long_to_wait_hears_then_that_it_is_not_here_and_the_fetch_goes_on(
    hub: FakeHub, nodes: CacheNodes
) -> None:
    hub.put("org/a", model_files(400_000))
    program = nodes.start("--rate", "100k")
    last = list(program.lines("/v1/ensure", {"source": "hf://org/a", "lease": "engine", "deadline_s": 0.5}))[-1]
    assert last["phase"] == "failed"
    assert last["message"].startswith("hf://org/a: not here before deadline_s was over; ")
    assert [said["source"] for said in program.report()["fetching"]] == ["hf://org/a@main"]
    patient = program.lines("/v1/ensure", {"source": "hf://org/a", "deadline_s": 1000})
    assert list(patient)[-1]["phase"] == "done"


@pytest.mark.parametrize("deadline_s", [-1, -0.1])
def test_a_time_that_is_over_before_it_begins_is_refused(nodes: CacheNodes, deadline_s: float) -> None:
    status, answer = nodes.start().post("/v1/ensure", {"source": "hf://org/a", "deadline_s": deadline_s})
    assert status == 400
    assert f"deadline_s is {deadline_s}; say for how many seconds to wait" in json.loads(answer)["error"]


class EvictedInBetween:
    """A cache whose model was evicted between its first `ensure` and the lease, so that it is fetched again."""

    def __init__(self) -> None:
        self.go_on, self.released = threading.Event(), list[str]()

    def ensure(
        self,
        source: str,
        lease: str,
        tell: Callable[[Progress], None] = lambda said: None,
        *,
        priority: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Leased:
        assert priority is None
        assert not stop()
        if lease:
            tell(Progress(source=source, phase="fetching", done_bytes=1, total_bytes=9))
            assert self.go_on.wait(DEADLINE_S)
        return Leased(Path("/m"), "org/a", COMMIT, "lease 1" if lease else "", 9)

    def release(self, lease_id: str) -> None:
        self.released.append(lease_id)


async def asked(cache: EvictedInBetween) -> tuple[CacheNode, AsyncGenerator[bytes, None]]:
    node = CacheNode(cast(Cache, cache), "node")
    stream: Any = await CacheApi(node, lambda: b"", None)._ensure({}, b'{"source": "hf://org/a", "lease": "engine"}')
    return node, stream.chunks


async def until_phase(lines: AsyncGenerator[bytes, None], phase: str) -> None:
    async for line in lines:
        if json.loads(line)["phase"] == phase:
            return
    raise AssertionError(f"it ended before {phase}")


def test_who_gets_a_lease_hears_of_a_fetch_that_comes_before_it() -> None:
    async def act() -> None:
        cache = EvictedInBetween()
        node, lines = await asked(cache)
        await asyncio.wait_for(until_phase(lines, "fetching"), DEADLINE_S)
        for _ in range(2):  # again and again, though nothing is new
            assert json.loads(await asyncio.wait_for(anext(lines), DEADLINE_S))["phase"] == "fetching"
        cache.go_on.set()
        await asyncio.wait_for(until_phase(lines, "done"), DEADLINE_S)
        await lines.aclose()
        await released(cache)
        await node.close()

    asyncio.run(act())


def test_who_leaves_before_the_lease_is_there_leaves_none_behind() -> None:
    async def act() -> None:
        cache = EvictedInBetween()
        node, lines = await asked(cache)
        await asyncio.wait_for(until_phase(lines, "fetching"), DEADLINE_S)
        await lines.aclose()
        cache.go_on.set()
        await released(cache)
        await node.close()

    asyncio.run(act())


async def released(cache: EvictedInBetween) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while cache.released != ["lease 1"]:
            await asyncio.sleep(0.01)
