"""What is evicted, pinned or leased is the revision that was named, or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.cache_nodes import CacheNodes
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.errors import ModelNotFoundError
from cotenant_cache.source import HubAccess

pytestmark = pytest.mark.integration


@pytest.fixture
def versions(hub: FakeHub) -> tuple[str, str]:
    """Commits of org/a: tags v1.0 and v2.0, of which the latter is also what `main` is."""
    first, second = (hub.put("org/a", model_files(1000, seed=seed)) for seed in (1, 2))
    hub.repos["org/a"].refs.update({"v1.0": first, "v2.0": second})
    return first, second


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "volume", access=HubAccess(endpoint=hub.url)) as opened:
        yield opened


@pytest.mark.parametrize("recorded", [True, False])
def test_no_other_revision_stands_for_one_that_is_not_here(
    cache: Cache, versions: tuple[str, str], recorded: bool
) -> None:
    first, second = versions
    cache.ensure("hf://org/a@v1.0" if recorded else f"hf://org/a@{first}")
    here = f"{first} (v1.0)" if recorded else first
    for asked in ("hf://org/a@v2.0", f"hf://org/a@{second}", "hf://org/a@v1"):
        for act in (
            lambda source: cache.evict([source], yes=True),
            lambda source: cache.verify([source]),
            lambda source: cache.lease(source, "me"),
            cache.pin,
            cache.unpin,
        ):
            with pytest.raises(ModelNotFoundError) as caught:
                act(asked)
            assert str(caught.value) == (
                f"{asked}: is not on {cache.root}, which has {here} of it; "
                "name one of these, or ensure this one first"
            )
    [model] = cache.models()
    assert (model.commit, model.pinned, model.leases) == (first, False, 0)


def test_without_a_revision_the_only_commit_there_is_is_meant(cache: Cache, versions: tuple[str, str]) -> None:
    first, second = versions
    cache.ensure(f"hf://org/a@{first}")  # as preload lists do, so that no branch is recorded
    assert cache.pin("hf://org/a") == cache.unpin("hf://org/a") == first
    cache.ensure("hf://org/a@v2.0")
    with pytest.raises(ModelNotFoundError, match=rf"which has .*{second} \(v2\.0\).* of it; name one of these"):
        cache.pin("hf://org/a")
    assert cache.pin("hf://org/a@v2.0") == second


def test_a_sidecar_leases_no_other_revision_than_the_one_that_was_named(
    hub: FakeHub, nodes: CacheNodes, versions: tuple[str, str]
) -> None:
    program = nodes.start()
    *_, said = program.lines("/v1/ensure", {"source": "hf://org/a@v1.0"})
    assert said["phase"] == "done"
    status, answer = program.post("/v1/leases", {"source": "hf://org/a@v2.0", "holder": "me"})
    assert status == 404
    assert versions[0] in json.loads(answer)["error"]
