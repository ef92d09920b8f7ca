"""The budget of a volume that several processes fill, and what keeps a model on it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.contract import BLOCK_BYTES

pytestmark = pytest.mark.integration

MIB = 2**20


def put(hub: FakeHub, *names: str, size_bytes: int = 3 * MIB) -> dict[str, dict[str, bytes]]:
    files = {f"org/{name}": model_files(size_bytes, seed=seed) for seed, name in enumerate(names)}
    for repo, content in files.items():
        hub.put(repo, content)
    return files


@pytest.mark.timeout(600)
def test_three_models_that_compete_for_the_room_of_two_never_have_more_than_it(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = put(hub, "a", "b", "c")
    budget = 7 * MIB
    for seed in range(30):
        root, draw = tmp_path / str(seed), random.Random(seed)
        sources = [f"hf://{draw.choice(sorted(files))}" for _ in range(12)]
        askers = [
            instances.start(
                root,
                # What is looked at is leased: it could be evicted meanwhile.
                *(call for source in sources[n::3] for call in (["ensure", source, "engine"], ["release_all"])),
                budget=budget,
                watch_bytes=True,
            )
            for n in range(3)
        ]
        for asker in askers:
            instances.ended(asker)

        said = [line for asker in askers for line in asker.of("ensure")]
        assert len(said) == len(sources), [asker.of("broken") for asker in askers]
        unexpected = [line for line in said if line.get("error", "CacheFull") != "CacheFull"]
        assert unexpected == [], f"seed {seed}"
        assert any("error" not in line for line in said), f"seed {seed}"
        most = max(asker.of("most")[0]["bytes"] for asker in askers)
        assert most <= budget + BLOCK_BYTES
        assert most <= budget, f"seed {seed}: with files in so small blocks not even one is too much"
        assert wrong_files(root) == []


def test_what_does_not_fit_evicts_what_its_plan_named_and_takes_its_names_away(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = put(hub, "a", "b", "c")
    one = instances.run(
        tmp_path,
        *(["ensure", "hf://org/a"], ["ensure", "hf://org/b"], ["plan", "hf://org/c"], ["ensure", "hf://org/c"]),
        ["models"],
        budget=7 * MIB,
    )
    [planned] = one.of("plan")[0]["evict"]
    assert one.of("ensure")[-1]["files"] == digests(files["org/c"])
    assert {model["repo"] for model in one.of("models")[0]["models"]} == set(files) - {planned["repo"]}
    assert not (tmp_path / f"models--{planned['repo'].replace('/', '--')}").exists()


def test_a_refusal_has_the_arithmetic_and_comes_before_the_first_byte(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    put(hub, "a")
    [refused] = instances.run(tmp_path, ["ensure", "hf://org/a"], budget=2 * MIB).of("ensure")
    assert refused["error"] == "CacheFull"
    assert "3.0 MiB more do not fit: of the budget of 2.0 MiB" in refused["message"]
    assert hub.bytes_sent("org/a", "model.safetensors") == 0
    assert volume_bytes(tmp_path) == 0


@pytest.mark.parametrize("kept", ["leased", "pinned"])
def test_what_is_leased_or_pinned_stays_and_the_reason_is_told(
    kept: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = put(hub, "a", "b")
    calls = {
        "leased": (["ensure", "hf://org/a", "engine 7"],),
        "pinned": (["ensure", "hf://org/a"], ["pin", "hf://org/a"]),
    }
    holder = instances.start(tmp_path, *calls[kept], ["hold"])
    instances.said(holder, "holding")
    other = instances.run(tmp_path, ["ensure", "hf://org/b"], ["evict", ["hf://org/a"]], budget=4 * MIB)

    why = {"leased": "in use by 1 lease", "pinned": "pinned"}[kept]
    assert why in other.of("ensure")[0]["message"]
    assert why in other.of("evict")[0]["refusal"]
    assert other.of("evict")[0]["gone"] == []
    instances.kill(holder)
    after = instances.run(tmp_path, ["ensure", "hf://org/b"], budget=4 * MIB).of("ensure")[0]
    assert after.get("files") == (digests(files["org/b"]) if kept == "leased" else None)


def test_a_model_that_is_ensured_and_leased_is_never_evicted_in_between(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path, full_size: Callable[[int], int]
) -> None:
    """One process asks for a model with a lease and looks at its files, another evicts everything all the time."""
    files = put(hub, "a", size_bytes=50_000)
    turns = full_size(200)
    taker = instances.start(tmp_path, ["take_turns", "hf://org/a"])
    evictor = instances.start(tmp_path, ["evict_always", "hf://org/a"])
    instances.until(lambda: len(taker.of("turn")) >= turns, f"{turns} turns")
    instances.until(lambda: len(evictor.of("refused")) >= 3, "evictions that were refused")
    instances.until(lambda: len(evictor.of("evicted")) >= 3, "evictions")
    instances.kill(taker)
    instances.kill(evictor)
    assert [line for line in taker.of("turn") if line["files"] != digests(files["org/a"])] == []
    assert {line["why"].split(": ")[1].split(";")[0] for line in evictor.of("refused")} <= {
        "in use by 1 lease",
        "in use by 2 leases",
    }
    assert wrong_files(tmp_path) == []


def test_a_plan_says_what_would_go_and_changes_nothing(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    put(hub, "a", "b")
    one = instances.run(
        tmp_path,
        *(["ensure", "hf://org/a"], ["ensure", "hf://org/b"]),
        *(["evict", ["hf://org/a"], 0, False], ["evict", [], MIB, False], ["plan", "hf://org/a"], ["models"]),
        *(["evict", [], MIB, True], ["models"]),
    )
    named, room = [line["gone"] for line in one.of("evict")][:2]
    assert [repo for repo, _ in named] == ["org/a"]
    assert len(room) == 1
    assert one.of("plan")[0]["needed_bytes"] == 0
    assert [len(line["models"]) for line in one.of("models")] == [2, 1]


def test_evicting_what_is_not_here_says_so(instances: CacheProcesses, tmp_path: Path) -> None:
    [refused] = instances.run(tmp_path, ["evict", ["hf://org/a"]]).of("evict")
    assert refused["error"] == "ModelNotFound"
    assert "hf://org/a: is not on" in refused["message"]
