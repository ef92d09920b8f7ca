"""A ledger that is deleted or damaged below instances that run: what they hold counts on, and so does the budget."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_ledger import ledger_path
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub
from tests.builders.folders import archive

from cotenant_cache.cache import Cache
from cotenant_cache.errors import VolumeError

pytestmark = pytest.mark.integration

MIB = 2**20
BUDGET = 7 * MIB


def deleted(root: Path) -> None:
    ledger_path(root).unlink()


def damaged(root: Path) -> None:
    ledger_path(root).write_bytes(b"no ledger any more" * 1000)


LOSSES = pytest.mark.parametrize("lose", [deleted, damaged])


@pytest.fixture
def three(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """Models of which two fit. An instance in this process asks the same hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")
    files = {f"org/m{seed}": model_files(3 * MIB, seed=seed) for seed in range(3)}
    for repo, content in files.items():
        hub.put(repo, content)
    return files


@LOSSES
def test_an_instance_that_runs_reads_the_disk_before_it_goes_by_a_new_ledger(
    lose: Callable[[Path], None], three: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    most = [0]

    def step(what: str) -> None:
        most[0] = max(most[0], volume_bytes(tmp_path))

    with Cache(tmp_path, BUDGET, step=step) as cache:
        cache.ensure("hf://org/m0")
        cache.ensure("hf://org/m1")
        lose(tmp_path)
        if lose is damaged:
            with pytest.raises(VolumeError, match="made anew from what is on the disk"):
                cache.usage()
        assert cache.usage().used_bytes == volume_bytes(tmp_path)
        assert [model.repo for model in cache.models()] == ["org/m0", "org/m1"]
        cache.ensure("hf://org/m2")
        assert most[0] <= BUDGET


@LOSSES
def test_what_an_idle_instance_has_leased_stays_for_one_that_opens_the_volume_anew(
    lose: Callable[[Path], None],
    three: dict[str, dict[str, bytes]],
    instances: CacheProcesses,
    tmp_path: Path,
) -> None:
    idle = instances.start(tmp_path, ["ensure", "hf://org/m0", "engine"], ["hold"], budget=BUDGET)
    instances.said(idle, "holding")
    instances.run(tmp_path, ["ensure", "hf://org/m1"], budget=BUDGET)
    lose(tmp_path)
    new = instances.run(
        tmp_path, ["ensure", "hf://org/m2", "x"], ["evict", ["hf://org/m0"]], ["models"], budget=BUDGET
    )
    assert new.of("ensure")[0].get("files") == digests(three["org/m2"]), new
    assert "in use by 1 lease" in new.of("evict")[0]["refusal"]
    assert [(model["repo"], model["leases"]) for model in new.of("models")[0]["models"]] == [
        ("org/m0", 1),
        ("org/m2", 1),
    ]

    instances.kill(idle)
    last = instances.run(tmp_path, ["evict", ["hf://org/m0"]], budget=BUDGET)
    assert last.of("evict")[0]["refusal"] == ""


@LOSSES
def test_the_room_and_the_bytes_of_a_fetch_that_goes_on_are_left_to_it(
    lose: Callable[[Path], None],
    three: dict[str, dict[str, bytes]],
    hub: FakeHub,
    instances: CacheProcesses,
    tmp_path: Path,
) -> None:
    files = {"net.pt2": archive(data__weights__weight_1=random.Random(1).randbytes(5 * MIB))}
    hub.put("org/a", files)
    fetching = instances.start(
        tmp_path, ["ensure", "hf://org/a"], budget=BUDGET, stop_at="partial.write:after#2", watch_bytes=True
    )
    instances.said(fetching, "stopped")
    [partial] = [path for path in (tmp_path / ".cotenant/partial").rglob("*") if path.is_file()]
    lose(tmp_path)
    other = instances.run(tmp_path, ["ensure", "hf://org/m0"], ["usage"], budget=BUDGET, watch_bytes=True)
    assert other.of("ensure")[0].get("error") == "CacheFull", other
    assert other.of("usage")[0]["reserved_bytes"] == len(files["net.pt2"])
    assert partial.exists()

    instances.go_on(fetching)
    assert instances.ended(fetching).of("ensure")[0].get("files") == digests(files), fetching
    assert max(one.of("most")[0]["bytes"] for one in (fetching, other)) <= BUDGET
    assert wrong_files(tmp_path) == []


def test_a_holder_that_keeps_nothing_or_nonsense_is_understood_as_one_that_holds_nothing(
    three: dict[str, dict[str, bytes]], instances: CacheProcesses, tmp_path: Path
) -> None:
    """An older version's file is empty."""
    for said in (b"", b"{", b"\xff\xff", b'{"leases": 1}'):
        root = tmp_path / str(len(said))
        idle = instances.start(root, ["hold"], budget=BUDGET)
        instances.said(idle, "holding")
        [holder] = (root / ".cotenant/holders").iterdir()
        holder.write_bytes(said)
        deleted(root)
        new = instances.run(root, ["ensure", "hf://org/m0"], ["usage"], budget=BUDGET)
        assert new.of("ensure")[0].get("files") == digests(three["org/m0"]), said
        assert new.of("usage")[0]["instances"] == 2
