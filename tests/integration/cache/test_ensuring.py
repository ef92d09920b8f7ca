"""`ensure`, by processes that share a volume: one download, progress for all, and whoever dies is replaced."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.builders.cache_processes import KILLED, CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import LISTING, FakeHub, Fault
from tests.builders.folders import archive

from cotenant_cache.client import read_facts
from cotenant_cache.contract import BLOCK_BYTES
from cotenant_cache.repair import Repaired
from cotenant_cache.store import Store, flight_key

pytestmark = pytest.mark.integration


NOTHING = asdict(Repaired())
IMPATIENT = {"connect_s": 1.0, "stall_s": 1.0}
ONE_FILE = {"net.pt2": archive(data__weights__weight_1=random.Random(1).randbytes(4 * 2**20))}
"""A model whose fetch, stopped in the middle, has no other file in work: nobody else waits for the volume then."""


def test_a_model_comes_whole_with_its_names_and_a_lease(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files()
    commit = hub.put("org/a", {**files, "model.py": b"print('never')", "pytorch_model.bin": b"pickle"})
    one = instances.run(tmp_path, ["ensure", "hf://org/a", "engine"], ["models"], ["usage"])

    [done] = one.of("ensure")
    assert done["files"] == digests(files)
    assert done["commit"] == commit
    assert done["folder"] == str(tmp_path / "models--org--a" / "snapshots" / commit)
    assert (tmp_path / "models--org--a" / "refs" / "main").read_text() == commit
    [model] = one.of("models")[0]["models"]
    assert (model["leases"], model["verified"], model["revisions"]) == (1, True, ["main"])
    assert one.of("usage")[0]["used_bytes"] == volume_bytes(tmp_path) == sum(map(len, files.values()))
    assert one.of("progress")[-1]["done"] == one.of("progress")[-1]["total"] == volume_bytes(tmp_path)


def test_fifty_askers_cause_one_download_and_see_how_far_it_is(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = ONE_FILE
    hub.put("org/a", files)
    instances.run(tmp_path / "alone", ["ensure", "hf://org/a"])
    of_one = hub.bytes_sent()
    hub.forget()
    root = tmp_path / "all"
    first = instances.start(root, ["ensure", "hf://org/a"], stop_at="partial.write:after#2")
    instances.said(first, "stopped")
    others = [instances.start(root, ["ensure", "hf://org/a", "engine"]) for _ in range(49)]
    for asker in others:
        instances.said(asker, "progress")
    instances.go_on(first)
    ended = [instances.ended(asker) for asker in (first, *others)]

    said = [asker.of("ensure")[0] for asker in ended]
    assert [line.get("files", line) for line in said] == [digests(files)] * 50
    total = len(files["net.pt2"])
    assert {(seen["phase"], seen["total"]) for asker in others for seen in asker.of("progress")[:1]} == {
        ("fetching", total)
    }
    assert hub.bytes_sent() == of_one
    assert hub.listings() == 1


@pytest.mark.parametrize("shards", [1, 2])
def test_who_fetches_may_be_killed_at_any_byte_and_a_waiter_goes_on_from_there(
    shards: int, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files(20 * 2**20, shards=shards)
    hub.put("org/a", files)
    for seed in range(15):
        root, write = tmp_path / str(seed), random.Random(seed).randint(1, 20)
        hub.forget()
        with hub.lock:
            first = instances.start(root, ["ensure", "hf://org/a"], die_at=f"partial.write:after#{write}")
            instances.said(first, "progress")
            second = instances.start(root, ["ensure", "hf://org/a"])
            instances.said(second, "progress")
        instances.ended(first)
        instances.ended(second)

        assert first.exit == KILLED, f"seed {seed}"
        assert second.of("ensure")[0]["files"] == digests(files), f"seed {seed}"
        again = hub.bytes_sent() - sum(len(content) for content in files.values())
        assert again < (shards + 1) * BLOCK_BYTES, f"seed {seed}: {again} bytes came twice"


def test_a_killed_download_goes_on_from_its_last_written_byte(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files(20 * 2**20)
    hub.put("org/a", files)
    instances.run(tmp_path, ["ensure", "hf://org/a"], die_at="partial.write:after#15")
    [partial] = [path for path in (tmp_path / ".cotenant/partial").rglob("*") if path.stat().st_size > 2**20]
    there = partial.stat().st_size
    hub.forget()

    [done] = instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")
    assert done["files"] == digests(files)
    assert hub.bytes_sent("org/a", "model.safetensors") == len(files["model.safetensors"]) - there
    assert not list((tmp_path / ".cotenant/partial").rglob("*"))


def test_what_is_here_needs_no_hub(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> None:
    commit = hub.put("org/a", model_files())
    instances.run(tmp_path, ["ensure", "hf://org/a"])
    hub.forget()
    pinned = instances.run(tmp_path, ["ensure", f"hf://org/a@{commit}", "engine"])
    assert pinned.of("ensure")[0]["commit"] == commit
    assert hub.log == []

    hub.set_down(True)
    branch = instances.run(tmp_path, ["ensure", "hf://org/a"], ["ensure", "hf://org/b"], limits=IMPATIENT)
    found, lacking = branch.of("ensure")
    assert found["commit"] == commit
    assert lacking["error"] == "HubUnreachable"


def test_who_has_nothing_asks_a_busy_hub_again_and_who_has_it_does_not_wait(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", model_files())
    hub.fault(Fault("burst", LISTING, times=2))
    assert "error" not in instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]
    asked = hub.listings()
    hub.fault(Fault("burst", LISTING, times=-1))
    assert "error" not in instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]
    assert hub.listings() == asked + 1


def test_a_branch_whose_commit_an_engine_fetched_is_there_without_a_hub(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `cotenant up` does: facts of a branch, then an engine that fetches the commit which they named."""
    commit = hub.put("org/a", model_files())
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")
    facts = read_facts("hf://org/a", str(tmp_path))
    assert facts.fingerprint == commit
    assert not list(tmp_path.glob("models--*")), "other tools take a name for a model"
    instances.run(tmp_path, ["ensure", facts.source])

    hub.set_down(True)
    assert read_facts("hf://org/a", str(tmp_path)).fingerprint == commit
    assert "error" not in instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]
    assert (tmp_path / "models--org--a/refs/main").read_text() == commit


def test_a_caller_that_is_told_to_end_while_files_come_ends_at_once_and_keeps_what_came(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.put("org/a", model_files(BLOCK_BYTES))
    hub.fault(Fault("drip", "model.safetensors", at=BLOCK_BYTES // 2, times=-1, value=0.05))
    words = [sys.executable, "-m", "cotenant_operator", "cache", "ensure", "hf://org/a", "--root", str(tmp_path)]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": ""}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > BLOCK_BYTES // 4 for path in tmp_path.glob(".cotenant/partial/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert any(path.stat().st_size > BLOCK_BYTES // 4 for path in tmp_path.glob(".cotenant/partial/*/*"))


def test_a_branch_that_moved_comes_anew_and_shares_what_stayed(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    old = model_files(shards=2)
    first = hub.put("org/a", old)
    instances.run(tmp_path, ["ensure", "hf://org/a"])
    new = {
        **old,
        "model-00002-of-00002.safetensors": model_files(shards=2, seed=9)["model-00002-of-00002.safetensors"],
    }
    second = hub.put("org/a", new)
    hub.forget()
    [done] = instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")

    assert (done["commit"], done["files"]) == (second, digests(new))
    assert hub.bytes_sent("org/a", "model-00001-of-00002.safetensors") == 0
    still = instances.run(tmp_path, ["ensure", f"hf://org/a@{first}"]).of("ensure")[0]
    assert still["files"] == digests(old)


def test_a_folder_of_its_own_passes_through(instances: CacheProcesses, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    [done] = instances.run(tmp_path / "cache", ["ensure", f"file://{tmp_path / 'model'}", "engine"]).of("ensure")
    assert (done["folder"], done["commit"], done["lease"]) == (str(tmp_path / "model"), "", "")


def test_a_file_that_breaks_its_digest_is_never_seen(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> None:
    files = model_files()
    hub.put("org/a", files)
    hub.fault(Fault("flip", "model.safetensors", at=5_000, times=-1))
    [failed] = instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")
    assert failed["error"] == "CorruptWeights"
    assert not list(tmp_path.glob("models--*/snapshots/*"))

    hub.heal()
    [done] = instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")
    assert done["files"] == digests(files)
    assert wrong_files(tmp_path) == []


def test_waiters_hear_why_it_failed_without_asking_again(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", ONE_FILE)
    first = instances.start(tmp_path, ["ensure", "hf://org/a"], stop_at="partial.open:before")
    instances.said(first, "stopped")
    judged = len(hub.requests("GET", "signature="))  # before its bytes are asked for
    hub.fault(Fault("other_content", times=-1))
    waiters = [instances.start(tmp_path, ["ensure", "hf://org/a"]) for _ in range(9)]
    for waiter in waiters:
        instances.said(waiter, "progress")
    instances.go_on(first)
    said = [instances.ended(asker).of("ensure")[0] for asker in (first, *waiters)]

    assert {line["error"] for line in said} == {"CorruptWeights"}
    assert len({line["message"] for line in said}) == 1
    assert hub.listings() == 1
    assert len(hub.requests("GET", "signature=")) == judged + 2


def test_a_wait_ends_when_the_caller_said_and_names_what_it_waited_for(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", ONE_FILE)
    fetcher = instances.start(tmp_path, ["ensure", "hf://org/a"], stop_at="partial.write:after")
    instances.said(fetcher, "stopped")
    [waiter] = instances.run(tmp_path, ["ensure", "hf://org/a", "", 0.5]).of("ensure")
    assert (
        "not here after 0.5 s; it waited for another cache instance that fetches it (fetching, " in waiter["message"]
    )
    instances.go_on(fetcher)
    assert instances.ended(fetcher).of("ensure")[0]["files"] == digests(ONE_FILE)


def test_a_fetch_ends_when_the_caller_said_although_the_hub_stalls(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", ONE_FILE)
    calls = ["ensure", "hf://org/a", "", 8.0]
    fetcher = instances.start(tmp_path, calls, stop_at="partial.open:before", limits={"stall_s": 3600.0})
    instances.said(fetcher, "stopped")
    hub.fault(Fault("stall", at=2**20))
    instances.go_on(fetcher)
    [stalled] = instances.ended(fetcher).of("ensure")
    assert "not here after 8 s; it was fetching net.pt2; what arrived is kept" in stalled["message"]

    hub.heal()
    assert instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]["files"] == digests(ONE_FILE)


@pytest.mark.parametrize("at", ["partial.open:before", "publish.sync:before", "link.make:before"])
def test_an_instance_that_starts_meanwhile_repairs_nothing_of_a_fetch_that_goes_on(
    at: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = {"net.pt2": archive()}  # one file, so that no other has begun
    hub.put("org/a", files)
    fetcher = instances.start(tmp_path, ["ensure", "hf://org/a", "engine"], stop_at=at)
    instances.said(fetcher, "stopped")
    other = instances.start(tmp_path)
    if at == "partial.open:before":  # at the others the fetcher is alone with the volume until it goes on
        instances.ended(other)
    instances.go_on(fetcher)
    assert instances.ended(fetcher).of("ensure")[0].get("files") == digests(files)
    assert instances.ended(other).of("open")[0]["repaired"] == NOTHING


def test_names_that_a_live_fetch_has_not_given_yet_are_left_to_it(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    """Between the last blob and the names the volume is free for others."""
    files = model_files()
    commit = hub.put("org/a", files)
    instances.run(tmp_path, ["ensure", "hf://org/a"])
    fetch = Store(tmp_path, None)
    with fetch.transaction() as tx:
        tx.reserve(flight_key("org/a"), 0, for_=("org/a", commit))
        fetch.volume.unlink_snapshot("org/a", commit)

    assert instances.run(tmp_path).of("open")[0]["repaired"] == NOTHING
    assert not (tmp_path / "models--org--a" / "snapshots" / commit).exists()
    fetch.close()  # as an end without them
    assert instances.run(tmp_path).of("open")[0]["repaired"] == {**NOTHING, "finished_models": 1}
    assert instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]["files"] == digests(files)
