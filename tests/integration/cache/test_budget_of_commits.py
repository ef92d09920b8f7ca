"""The budget of a volume on which one repository is fetched at several commits."""

import random
from pathlib import Path

import pytest
from tests.builders.cache_processes import KILLED, CacheProcesses
from tests.builders.cached_models import digests, model_files, wrong_files
from tests.builders.fake_hub import FakeHub
from tests.builders.folders import archive

from cotenant_cache.contract import BLOCK_BYTES

pytestmark = pytest.mark.integration

MIB = 2**20


def one_file(size_bytes: int, seed: int) -> dict[str, bytes]:
    """Of a fetch that is stopped no other file is in work: nobody else waits for the volume then."""
    return {"net.pt2": archive(data__weights__weight_1=random.Random(seed).randbytes(size_bytes))}


def test_what_a_killed_fetch_of_another_commit_left_is_no_room_of_the_one_that_is_fetched(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    """Commit 1 is killed near its end, commit 2 has its room promised and no byte yet, and org/b asks for as much."""
    size, budget = 20 * MIB, 42 * MIB
    first = hub.put("org/a", one_file(size, seed=1))
    killed = instances.run(
        tmp_path, ["ensure", f"hf://org/a@{first}"], budget=budget, die_at="partial.write:after#18"
    )
    assert killed.exit == KILLED
    files = {"org/a": one_file(size, seed=2), "org/b": model_files(size, seed=3)}
    second = hub.put("org/a", files["org/a"])
    hub.put("org/b", files["org/b"])

    fetching = instances.start(
        tmp_path,
        ["ensure", f"hf://org/a@{second}"],
        budget=budget,
        stop_at="partial.open:before",
        watch_bytes=True,
    )
    instances.said(fetching, "stopped")
    other = instances.run(tmp_path, ["ensure", "hf://org/b"], ["models"], budget=budget, watch_bytes=True)
    instances.go_on(fetching)
    instances.ended(fetching)

    most = max(one.of("most")[0]["bytes"] for one in (fetching, other))
    assert most <= budget + BLOCK_BYTES
    assert fetching.of("ensure")[0].get("files") == digests(files["org/a"]), fetching
    assert other.of("ensure")[0].get("files") == digests(files["org/b"]), other
    assert first not in {model["commit"] for model in other.of("models")[0]["models"]}
    assert wrong_files(tmp_path) == []
