"""A volume that cannot be written serves what is whole and right, without a lease, and nothing else."""

import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.builders.cache_processes import fill_disk
from tests.builders.cached_models import model_files, put_by_hub_client, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.client import open_checked
from cotenant_cache.errors import CorruptWeightsError, VolumeError
from cotenant_cache.source import HubAccess

pytestmark = pytest.mark.integration


def block(root: Path) -> None:
    """From here on no cache instance can be made there; a ledger stays to be read."""
    if (root / ".cotenant" / "holders").exists():
        (root / ".cotenant" / "holders").rename(root / "holders of before")
        (root / ".cotenant" / "holders").touch()
    else:
        (root / ".cotenant").touch()


def fetched(hub: FakeHub, root: Path) -> str:
    """`org/a` by the cache → its commit."""
    commit = hub.put("org/a", model_files())
    with Cache(root, access=HubAccess(endpoint=hub.url)) as cache:
        cache.ensure("hf://org/a")
    return commit


def flip(folder: Path, name: str = "model.safetensors") -> None:
    blob = (folder / name).resolve()
    content = bytearray(blob.read_bytes())
    content[-100] ^= 4
    blob.chmod(0o644)
    blob.write_bytes(content)


@contextmanager
def own_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_that_nobody_has_looked_for_is_found_before_the_model_is_opened(
    seen: bool, name: str, hub: FakeHub, tmp_path: Path
) -> None:
    commit = hub.put("org/a", model_files() | {"config.json": model_files()["config.json"] + b" " * 200})
    folder = put_by_hub_client(hub.url, "org/a", tmp_path)
    if seen:
        Cache(tmp_path).close()  # its ledger knows the model, and that it was never checked
    flip(folder, name)
    block(tmp_path)
    with pytest.raises(CorruptWeightsError, match=rf"{name} is not what its digest says .* let this user write"):
        open_checked(f"hf://org/a@{commit}", str(tmp_path), lease="engine")


@pytest.mark.parametrize("source", ["hf://org/a", "hf://org/a@{commit}"])
def test_a_right_model_is_opened_after_each_byte_was_looked_at_and_the_log_says_that_no_lease_keeps_it(
    source: str, hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = model_files()
    commit = hub.put("org/a", {**files, "net.py": b"print('never')"})
    folder = put_by_hub_client(hub.url, "org/a", tmp_path)
    (folder / "README.md").write_text("a note of somebody")
    block(tmp_path)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING, "cotenant.cache"):
        opened = open_checked(
            source.format(commit=commit), str(tmp_path), lambda *said: seen.append(said), lease="engine"
        )
    assert (opened.folder, opened.facts.fingerprint, opened.holding) == (folder, commit, None)
    assert seen[-1] == (sum(map(len, files.values())),) * 2
    assert "no lease keeps it, another instance may evict it" in caplog.text
    opened.close()


def test_what_the_ledger_knows_as_right_is_not_read_again(hub: FakeHub, tmp_path: Path) -> None:
    commit = fetched(hub, tmp_path)
    block(tmp_path)
    seen: list[tuple[int, int]] = []
    opened = open_checked("hf://org/a", str(tmp_path), lambda *said: seen.append(said))
    assert (opened.folder.name, seen) == (commit, [])


def test_a_file_that_became_shorter_since_the_ledger_saw_it_is_read_again(hub: FakeHub, tmp_path: Path) -> None:
    commit = fetched(hub, tmp_path)
    blob = (tmp_path / "models--org--a" / "snapshots" / commit / "tokenizer.json").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"{")
    block(tmp_path)
    with pytest.raises(CorruptWeightsError, match=r"tokenizer\.json is not what its digest says"):
        open_checked("hf://org/a", str(tmp_path))


@pytest.mark.parametrize("lost", ["tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("what", ["name", "blob"])
def test_a_model_that_is_not_whole_is_refused_with_what_is_wrong_with_the_volume(
    what: str, lost: str, hub: FakeHub, tmp_path: Path
) -> None:
    commit = fetched(hub, tmp_path)
    path = tmp_path / "models--org--a" / "snapshots" / commit / lost
    (path if what == "name" else path.resolve()).unlink()
    block(tmp_path)
    with pytest.raises(VolumeError, match="cannot be used as a weight cache"):
        open_checked("hf://org/a", str(tmp_path))


def test_a_folder_in_place_of_a_link_to_a_blob_is_not_opened(hub: FakeHub, tmp_path: Path) -> None:
    """What is in it is read as the model's, and no digest says what it should be."""
    fetched(hub, tmp_path)
    [folder] = (tmp_path / "models--org--a" / "snapshots").iterdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    block(tmp_path)
    with pytest.raises(VolumeError, match="1_Pooling is no link to a blob"):
        open_checked("hf://org/a", str(tmp_path))


def test_a_copy_in_place_of_a_link_has_no_digest_and_is_not_opened(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.put("org/a", model_files())
    file = put_by_hub_client(hub.url, "org/a", tmp_path) / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    block(tmp_path)
    with pytest.raises(VolumeError, match=r"model\.safetensors is no link to a blob"):
        open_checked(f"hf://org/a@{commit}", str(tmp_path))


@pytest.mark.parametrize("ledger", [b"", b"no ledger at all", None])
def test_without_a_ledger_that_can_be_read_every_byte_is_looked_at(
    ledger: bytes | None, hub: FakeHub, tmp_path: Path
) -> None:
    commit = fetched(hub, tmp_path)
    file = tmp_path / ".cotenant" / "ledger.sqlite"
    file.unlink()
    if ledger is not None:
        file.write_bytes(ledger)
    block(tmp_path)
    seen: list[tuple[int, int]] = []
    open_checked("hf://org/a", str(tmp_path), lambda *said: seen.append(said))
    assert seen[-1][0] == seen[-1][1] > 100_000
    flip(tmp_path / "models--org--a" / "snapshots" / commit)
    with pytest.raises(CorruptWeightsError):
        open_checked("hf://org/a", str(tmp_path))
    assert file.exists() is (ledger is not None)


@pytest.mark.parametrize("why", ["full", "read-only"])
def test_a_disk_that_is_full_or_read_only_serves_what_is_right_and_changes_nothing(
    why: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are for real, with the ledger and its journal on them."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with own_disk(tmp_path / "disk") as root:
        commit = fetched(hub, root)
        hub.put("org/b", model_files(seed=1))
        bad = put_by_hub_client(hub.url, "org/b", root)
        flip(bad)
        if why == "full":
            fill_disk(root / "filler")
            fill_disk(root / ".cotenant" / "filler")
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        hub.set_down(True)
        seen: list[tuple[int, int]] = []
        opened = open_checked(f"hf://org/a@{commit}", str(root), lambda *said: seen.append(said), lease="engine")
        assert (opened.folder.name, seen) == (commit, [])
        with pytest.raises(CorruptWeightsError):
            open_checked("hf://org/b", str(root), lease="engine")
        assert wrong_files(root) == [str(bad / "model.safetensors")]
