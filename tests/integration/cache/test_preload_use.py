"""What a preload list says about a model, and what counts as its use."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.source import HubAccess
from cotenant_cache.store import Clock

pytestmark = pytest.mark.integration
HOUR_S = 3600.0


@dataclass
class Hours:
    """A clock that goes on when it is told."""

    now_s: float = 1e9

    def passed(self, hours: float) -> float:
        self.now_s += hours * HOUR_S
        return self.now_s

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now_s, monotonic=time.monotonic)


def used_at(cache: Cache) -> dict[str, float]:
    return {model.repo: model.used_at for model in cache.models()}


def test_a_list_that_asks_again_and_again_does_not_make_a_model_look_used(hub: FakeHub, tmp_path: Path) -> None:
    hours, source = Hours(), f"hf://org/a@{hub.put('org/a', model_files())}"
    access = HubAccess(endpoint=hub.url, token="none")
    with Cache(tmp_path, 10**9, access=access, clock=hours.clock()) as cache:
        arrived = hours.now_s
        cache.ensure(source, priority=0)
        assert used_at(cache) == {"org/a": arrived}, "its arrival counts"
        for _ in range(20):
            hours.passed(1)
            cache.ensure(source, priority=0)
            cache.ensure("hf://org/a", priority=0)
        assert used_at(cache) == {"org/a": arrived}
        cache.ensure(source)
        assert used_at(cache) == {"org/a": hours.now_s}, "somebody needs it now"


def test_of_two_preloaded_models_the_one_that_nobody_calls_makes_way(hub: FakeHub, tmp_path: Path) -> None:
    sources = {
        name: f"hf://org/{name}@{hub.put(f'org/{name}', model_files(1_000_000, seed=ord(name)))}" for name in "abc"
    }
    hours, access = Hours(), HubAccess(endpoint=hub.url, token="none")
    with Cache(tmp_path, 2_500_000, access=access, clock=hours.clock()) as cache:
        for name in ("a", "b"):
            cache.ensure(sources[name], priority=0)
        hours.passed(1)
        cache.ensure(sources["a"])
        hours.passed(1)
        for _ in range(60):
            cache.ensure(sources["b"], priority=0)
        [going] = cache.plan(sources["c"]).evict
    assert going.repo == "org/b"
