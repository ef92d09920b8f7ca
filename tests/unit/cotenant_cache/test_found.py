"""What lies on a volume: branches, names and blobs, whoever put them there."""

import os
from pathlib import Path

import pytest
from tests.builders.cache_ledger import put

from cotenant_cache.found import found_model, names_in, revisions_in
from cotenant_cache.store import Store

A, B, SHA = "a" * 40, "b" * 40, "c" * 64


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def linked(path: Path, to: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def shown(store: Store) -> dict[str, tuple[str, ...]]:
    with store.transaction() as tx:
        return {model.commit: model.revisions for model in store.shown(tx)}


def test_a_branch_that_another_tool_writes_over_is_seen_at_once_whatever_its_time_says(tmp_path: Path) -> None:
    """As huggingface_hub does: into the file that is there, so that its folder does not change."""
    store, main = Store(tmp_path, None), tmp_path / "models--org--a/refs/main"
    with store.transaction() as tx:
        put(tx, f"org/a@{A}", d1=1)
        put(tx, f"org/a@{B}", d2=1)
    before = written(main, A).stat()
    assert shown(store) == {A: ("main",), B: ()}

    main.write_text(B)
    os.utime(main, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shown(store) == {A: (), B: ("main",)}
    written(main.parent / "refs/pr/1", A)
    written(main.with_name("v1"), A)
    assert shown(store) == {A: ("refs/pr/1", "v1"), B: ("main",)}


def test_a_branch_has_the_folders_of_its_name_and_whatever_is_no_commit_is_none(tmp_path: Path) -> None:
    written(tmp_path / "main", f"{A}\n")
    written(tmp_path / "feature/one/deep", B)
    written(tmp_path / "feature/two", A)
    written(tmp_path / "half", A[:39])
    written(tmp_path / "longer", f"{A} and more")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    (tmp_path / "empty").mkdir()
    linked(tmp_path / "around", ".")
    linked(tmp_path / "nowhere", "gone")
    linked(tmp_path / "same", "main")
    assert revisions_in(tmp_path) == {"main": A, "feature/one/deep": B, "feature/two": A, "same": A}
    assert revisions_in(tmp_path / "not-there") == {}
    assert revisions_in(tmp_path / "main") == {}


@pytest.mark.parametrize(
    "to", [f"../../blobs/{SHA}", f"../../blobs//{SHA}", f"/elsewhere/blobs/./{SHA}", f"blobs/{SHA}"]
)
def test_a_name_leads_to_a_blob_however_its_link_is_spelled(to: str, tmp_path: Path) -> None:
    linked(tmp_path / "sub/model.safetensors", to)
    assert names_in(tmp_path) == {"sub/model.safetensors": SHA}


def test_names_that_lead_to_no_blob_are_told_apart(tmp_path: Path) -> None:
    written(tmp_path / "plain.json", "{}")
    linked(tmp_path / "tokenizer", "../../blobs")
    linked(tmp_path / "strange", f"../../my-blobs/{SHA}")
    linked(tmp_path / "short", f"../../blobs/{SHA[:39]}")
    linked(tmp_path / "sub/around", "..")
    assert names_in(tmp_path) == dict.fromkeys(("plain.json", "tokenizer", "strange", "short", "sub/around"), "")


def test_a_models_folder_has_its_plain_blobs_and_the_names_that_lead_to_blobs(tmp_path: Path) -> None:
    written(tmp_path / "blobs" / SHA, "12345")
    written(tmp_path / "blobs" / f"{SHA}.incomplete", "12")
    written(tmp_path / "blobs" / A / "inside", "1")
    linked(tmp_path / "blobs" / B, SHA)
    linked(tmp_path / "snapshots" / A / "config.json", f"../../blobs/{SHA}")
    written(tmp_path / "snapshots" / A / "plain.json", "{}")
    (tmp_path / "snapshots" / B).mkdir()
    written(tmp_path / "snapshots/main/config.json", "{}")

    found = found_model(tmp_path, "org/a", {})
    assert found.blobs == {SHA: 5}
    assert found.commits == {A: {"config.json": SHA}, B: {}}


def test_names_that_are_no_text_are_no_branches_and_no_files_but_their_blobs_count(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / A
    for name in (b"\xff.json", b"f\xfcr/config.json"):
        linked(snapshot / os.fsdecode(name), f"../../blobs/{SHA}")
    linked(snapshot / "für.json", f"../../blobs/{B}")
    written(tmp_path / "refs" / os.fsdecode(b"\xff"), A)
    written(tmp_path / "refs" / "für", A)

    assert revisions_in(tmp_path / "refs") == {"für": A}
    assert names_in(snapshot) == {"für.json": B}
    assert found_model(tmp_path, "org/a", {}).commits == {
        A: {"\\xff.json": SHA, "f\\xfcr/config.json": SHA, "für.json": B}
    }
