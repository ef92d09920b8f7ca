"""Bits that flip on the disk, and disks that are full."""

import hashlib
import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.store import Clock
from cotenant_cache.verifying import look

pytestmark = pytest.mark.integration

MIB = 2**20


def blobs_of(root: Path) -> list[Path]:
    return sorted(root.glob("models--*/blobs/*"))


def flip(path: Path, draw: random.Random) -> None:
    """One bit anywhere; length and time stay."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    with path.open("r+b") as stream:  # the same file, as a disk that fails
        stream.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.timeout(600)
def test_every_flipped_bit_is_found_quarantined_and_fetched_again(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    models = {f"org/m{seed}": model_files(40_000, seed=seed, shards=8) for seed in range(6)}
    for repo, files in models.items():
        hub.put(repo, files)
    ensure_all = [["ensure", f"hf://{repo}"] for repo in models]
    instances.run(tmp_path, *ensure_all)
    draw, flips, found = random.Random(1), 1_000, 0
    while found < flips:
        victims = draw.sample(blobs_of(tmp_path), min(50, flips - found))
        for path in victims:
            flip(path, draw)
        run = instances.run(tmp_path, ["verify"], ["verify"], *ensure_all)

        first, second = run.of("verify")
        assert {bad["digest"] for bad in first["bad"]} == {path.name for path in victims}
        assert second["bad"] == []
        assert [line["files"] for line in run.of("ensure")] == [digests(files) for files in models.values()]
        assert wrong_files(tmp_path) == []
        found += len(victims)
    assert len(list((tmp_path / ".cotenant/quarantine").iterdir())) <= 4


def test_a_model_with_a_flipped_bit_is_not_served_although_the_hub_is_gone(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", model_files())
    holder = instances.start(tmp_path, ["ensure", "hf://org/a", "engine"], ["hold"])
    instances.said(holder, "holding")
    flip(max(blobs_of(tmp_path), key=lambda path: path.stat().st_size), random.Random(1))
    hub.set_down(True)
    run = instances.run(tmp_path, ["verify"], ["ensure", f"hf://org/a@{commit}"], ["lease", "hf://org/a", "x"])

    [bad] = run.of("verify")[0]["bad"]
    assert (bad["commits"], bad["leased"]) == ([commit], True)
    assert run.of("ensure")[0]["error"] == "HubUnreachable"
    assert run.of("lease")[0]["error"] == "ModelNotFound"
    assert not list(tmp_path.glob("models--*/snapshots/*"))


def test_verification_reads_the_disk_also_of_a_file_that_an_engine_has_mapped(tmp_path: Path) -> None:
    """What is mapped stays in memory, whatever happens to the disk below it."""
    path = tmp_path / "blob"
    path.write_bytes(random.Random(1).randbytes(4 * MIB))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        os.fsync(file.fileno())
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            pytest.skip(f"the file system of {tmp_path} has no direct reads")
        digest = hashlib.sha256(mapped).hexdigest()
        for fresh in (False, True):
            before = read_from_disks()
            looked = look(path, digest, lambda count: None, fresh=fresh)
            assert looked is not None
            assert looked.digest == digest
            assert (read_from_disks() - before >= 4 * MIB) == fresh


def read_from_disks() -> int:
    """Bytes, by this process."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


def test_verification_keeps_to_its_rate(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> None:
    """By a clock that only the cache's own waits move."""
    hub.put("org/a", model_files(2 * MIB))
    instances.run(tmp_path, ["ensure", "hf://org/a"])
    slept: list[float] = []
    clock = replace(Clock(), monotonic=lambda: sum(slept), sleep=slept.append)
    with Cache(tmp_path, clock=clock) as cache:
        verified = cache.verify(rate_bytes_per_s=100_000)
    assert sum(slept) == pytest.approx(verified.bytes / 100_000, rel=0.01)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_without_room_refuses_before_the_first_byte_or_evicts(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    a, b = model_files(10 * MIB, seed=1), model_files(10 * MIB, seed=2)
    hub.put("org/a", a)
    hub.put("org/b", b)
    with small_disk(tmp_path / "disk", 18 * MIB) as root:
        holder = instances.start(root, ["ensure", "hf://org/a", "engine"], ["hold"])
        instances.said(holder, "holding")
        assert [line.get("error") for line in holder.of("ensure")] == [None], holder
        [refused] = instances.run(root, ["ensure", "hf://org/b"]).of("ensure")
        assert refused.get("error") == "DiskFull", refused
        assert "10.0 MiB more do not fit: the disk has " in refused["message"]
        assert hub.bytes_sent("org/b", "model.safetensors") == 0

        instances.kill(holder)
        assert instances.run(root, ["ensure", "hf://org/b"]).of("ensure")[0]["files"] == digests(b)


@pytest.mark.parametrize(
    "at", ["partial.write:after#4", "publish.rename:before#3", "link.make:before", "ref.make:before"]
)
def test_a_disk_that_somebody_else_fills_meanwhile_loses_nothing(
    at: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    a, b = model_files(3 * MIB, seed=1), model_files(10 * MIB, seed=2)
    hub.put("org/a", a)
    hub.put("org/b", b)
    with small_disk(tmp_path / "disk", 18 * MIB) as root:
        holder = instances.start(root, ["ensure", "hf://org/a", "engine"], ["hold"])
        instances.said(holder, "holding")
        failed = instances.run(root, ["ensure", "hf://org/b"], fill_at=at)
        [line] = failed.of("ensure")
        assert line["error"] == "DiskFull", line
        assert wrong_files(root) == []
        while_full = instances.run(root, ["ensure", "hf://org/b"])
        assert {line["error"] for line in while_full.lines if "error" in line} == {"DiskFull"}

        (root / "filler").unlink()
        there = sum(path.stat().st_size for path in (root / ".cotenant/partial").rglob("*") if path.is_file())
        published = sum(path.stat().st_size for path in root.glob("models--org--b/blobs/*"))
        hub.forget()
        run = instances.run(root, ["ensure", "hf://org/b"], ["ensure", "hf://org/a"])
        assert [line["files"] for line in run.of("ensure")] == [digests(b), digests(a)]
        weights = len(b["model.safetensors"])
        assert hub.bytes_sent("org/b", "model.safetensors") <= max(0, weights - max(there, published))
