"""Models of one preload list, and the room of fewer: none drives out another, at no moment."""

from pathlib import Path

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.errors import CacheFullError
from cotenant_cache.source import HubAccess

pytestmark = pytest.mark.integration


def put(hub: FakeHub, *names: str) -> dict[str, str]:
    return {name: hub.put(f"org/{name}", model_files(1_000_000, seed=ord(name))) for name in names}


def preloaded(cache: Cache) -> set[str]:
    return {model.repo.removeprefix("org/") for model in cache.models() if model.preload}


def test_a_preloaded_model_is_on_the_list_from_its_end_on_and_makes_no_way_for_the_next(
    hub: FakeHub, tmp_path: Path
) -> None:
    put(hub, "a", "b", "c")
    with Cache(tmp_path, 2_500_000, access=HubAccess(endpoint=hub.url, token="none")) as cache:
        for name in ("a", "b"):
            cache.ensure(f"hf://org/{name}", priority=0)
        assert preloaded(cache) == {"a", "b"}
        with pytest.raises(CacheFullError, match="preload with priority 0"):
            cache.ensure("hf://org/c", priority=0)
        cache.ensure("hf://org/c")
        assert "c" not in preloaded(cache), "it is needed now"


def test_a_model_that_is_here_joins_the_list_when_it_is_preloaded(hub: FakeHub, tmp_path: Path) -> None:
    commits = put(hub, "a")
    with Cache(tmp_path, 2**40, access=HubAccess(endpoint=hub.url, token="none")) as cache:
        cache.ensure("hf://org/a")
        assert preloaded(cache) == set()
        cache.ensure(f"hf://org/a@{commits['a']}", priority=3)
        assert preloaded(cache) == {"a"}


def test_a_list_that_is_noted_while_a_model_of_it_comes_takes_nothing_from_that(hub: FakeHub, tmp_path: Path) -> None:
    commits = put(hub, "a", "b")
    with Cache(tmp_path, 2**40, access=HubAccess(endpoint=hub.url, token="none")) as cache:
        for name in ("a", "b"):
            cache.ensure(f"hf://org/{name}", priority=0)
        cache.set_preload([("org/a", commits["a"], 0)], coming={"org/b"})
        assert preloaded(cache) == {"a", "b"}
        cache.set_preload([("org/a", commits["a"], 0)])
        assert preloaded(cache) == {"a"}
