"""What other tools put beside the files that an engine reads: left to them, counted, and evicted with its model."""

import os
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses, Instance
from tests.builders.cached_models import digests, model_files, put_by_hub_client, weights
from tests.builders.fake_hub import FakeHub

pytestmark = pytest.mark.integration

FILES = model_files()
BESIDE = {
    ".gitattributes": b"* -text",
    "model.py": b"print('never')",
    "pytorch_model.bin": bytes(50_000),
    "consolidated.safetensors": weights(30_000, 7),
}
EVERYTHING = {**FILES, **BESIDE}
ALL_BYTES = sum(map(len, EVERYTHING.values()))


def names(root: Path, commit: str) -> set[str]:
    return {path.name for path in (root / "models--org--a/snapshots" / commit).iterdir() if path.exists()}


def nothing_is_left(root: Path, run: Instance) -> None:
    assert run.of("evict")[0]["refusal"] == ""
    assert run.of("usage")[-1]["used_bytes"] == 0
    assert not list(root.glob("models--*"))


@pytest.mark.parametrize("hub_lists_it", [False, True])
def test_evicting_an_adopted_model_removes_all_of_its_names_and_bytes(
    hub_lists_it: bool, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", EVERYTHING)
    put_by_hub_client(hub.url, "org/a", tmp_path)
    hub.set_down(not hub_lists_it)
    source = "hf://org/a" if hub_lists_it else f"hf://org/a@{commit}"
    before = instances.run(tmp_path, ["adopt"], ["ensure", source], ["usage"], ["models"])
    assert before.of("ensure")[0]["commit"] == commit
    assert names(tmp_path, commit) == set(EVERYTHING)
    assert before.of("usage")[0]["used_bytes"] == ALL_BYTES
    [model] = before.of("models")[0]["models"]
    assert (model["size_bytes"], model["present_bytes"]) == (ALL_BYTES, ALL_BYTES)

    nothing_is_left(tmp_path, instances.run(tmp_path, ["evict", [source]], ["usage"]))


def test_what_a_tool_adds_to_a_model_of_the_cache_goes_with_it_and_not_before(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", EVERYTHING)
    hub.put("org/b", model_files(20_000, seed=1))
    instances.run(tmp_path, ["ensure", "hf://org/a", "engine"])
    put_by_hub_client(hub.url, "org/a", tmp_path)
    run = instances.run(
        tmp_path,
        ["lease", "hf://org/a", "engine"],
        ["ensure", "hf://org/b"],
        ["release_all"],
        budget=ALL_BYTES + 1_000,
    )
    assert run.of("ensure")[0]["error"] == "CacheFull"  # nothing of a model in use makes way
    assert names(tmp_path, commit) == set(EVERYTHING)

    nothing_is_left(tmp_path, instances.run(tmp_path, ["evict", ["hf://org/a"]], ["usage"]))


@pytest.mark.parametrize("lost", ["pytorch_model.bin", "model.py"])
def test_a_model_is_whole_without_what_was_beside_it(
    lost: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", EVERYTHING)
    folder = put_by_hub_client(hub.url, "org/a", tmp_path)
    instances.run(tmp_path, ["adopt"])
    (folder / lost).resolve().unlink()
    hub.set_down(True)
    run = instances.run(
        tmp_path, ["ensure", f"hf://org/a@{commit}"], ["models"], ["evict", ["hf://org/a"]], ["usage"]
    )

    assert run.of("ensure")[0]["commit"] == commit
    [model] = run.of("models")[0]["models"]
    assert model["size_bytes"] == model["present_bytes"] == ALL_BYTES - len(EVERYTHING[lost])
    nothing_is_left(tmp_path, run)


def test_a_bad_file_beside_a_model_takes_no_name_from_what_is_read(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", EVERYTHING)
    blob = (put_by_hub_client(hub.url, "org/a", tmp_path) / "pytorch_model.bin").resolve()
    instances.run(tmp_path, ["adopt"])
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    hub.set_down(True)
    run = instances.run(tmp_path, ["verify"], ["ensure", f"hf://org/a@{commit}"])

    assert [(bad["digest"], bad["commits"]) for bad in run.of("verify")[0]["bad"]] == [(blob.name, [])]
    assert run.of("ensure")[0]["commit"] == commit
    assert names(tmp_path, commit) == set(EVERYTHING) - {"pytorch_model.bin"}


def test_names_that_are_no_text_keep_nobody_from_a_volume_and_go_with_their_model(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", FILES)
    folder = put_by_hub_client(hub.url, "org/a", tmp_path)
    blobs, strange = tmp_path / "models--org--a/blobs", b"strange"
    digest = "5" * 40
    (blobs / digest).write_bytes(strange)
    os.symlink(f"../../blobs/{digest}", os.path.join(os.fsencode(folder), b"\xff.json"))
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"models--\xff--a"))
    (tmp_path / "models--org--a/refs" / os.fsdecode(b"\xff")).write_text(commit)
    hub.set_down(True)
    run = instances.run(
        tmp_path, ["adopt"], ["models"], ["ensure", f"hf://org/a@{commit}"], ["evict", ["hf://org/a"]], ["usage"]
    )
    assert "error" not in run.of("open")[0]
    [model] = run.of("models")[0]["models"]
    assert model["size_bytes"] == sum(map(len, FILES.values())) + len(strange)
    assert digests(FILES).items() <= run.of("ensure")[0]["files"].items()
    assert run.of("usage")[-1]["used_bytes"] == 0
    assert not (tmp_path / "models--org--a").exists()
