"""Blobs that have their name on the disk and not yet their line in the ledger: whoever published them was killed, or
could not write, right then."""

import errno
import random
from pathlib import Path

import pytest
from tests.builders.cache_processes import KILLED, CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub
from tests.builders.folders import archive

from cotenant_cache.cache import Cache
from cotenant_cache.errors import CacheError

pytestmark = pytest.mark.integration

MIB = 2**20
BUDGET = 5 * MIB
FILES = model_files(3 * MIB, shards=2)
SHARDS = {name: digest for name, digest in digests(FILES).items() if name.endswith(".safetensors")}
ONE_FILE = {"net.pt2": archive(data__weights__weight_1=random.Random(1).randbytes(3 * MIB))}
PUBLISHED = ["publish.rename:after", "publish.sync_folder:after"]
"""In a transaction that has yet to be committed."""


@pytest.mark.parametrize("at", [f"{step}#{number}" for step in PUBLISHED for number in (4, 5)])
def test_a_waiter_takes_what_a_killed_one_had_published_and_not_noted(
    at: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", FILES)
    with hub.lock:  # both have opened the volume, and so repaired it, before anything comes
        first = instances.start(tmp_path, ["ensure", "hf://org/a"], budget=BUDGET, stop_at=at)
        instances.said(first, "progress")
        second = instances.start(tmp_path, ["ensure", "hf://org/a"], ["usage"], budget=BUDGET, watch_bytes=True)
        instances.said(second, "progress")
    instances.said(first, "stopped")
    published = [name for name, digest in SHARDS.items() if (tmp_path / "models--org--a/blobs" / digest).exists()]
    hub.forget()
    instances.kill(first)
    instances.ended(second)

    assert published
    assert second.of("ensure")[0].get("files") == digests(FILES), second
    assert [name for name in published if hub.bytes_sent("org/a", name)] == []
    assert second.of("most")[0]["bytes"] <= BUDGET
    assert second.of("usage")[0]["used_bytes"] == volume_bytes(tmp_path)
    assert wrong_files(tmp_path) == []


@pytest.fixture
def running(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Running":
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")
    return Running(tmp_path)


class Running:
    """An instance in this process. At the step `at` the disk says `fault`, once, when a large file has its name."""

    def __init__(self, root: Path) -> None:
        self.root, self.most = root, 0
        self.fault: OSError | None = None
        self.at = PUBLISHED[0]
        self.published: list[str] = []
        """Digests of what had its name at the fault."""
        self.cache = Cache(root, BUDGET, step=self._step)

    def _step(self, what: str) -> None:
        self.most = max(self.most, volume_bytes(self.root))
        large = [path for path in self.root.glob("models--org--a/blobs/*") if path.stat().st_size > MIB]
        if self.fault is not None and what == self.at and large:
            fault, self.fault = self.fault, None
            self.published = [path.name for path in large]
            raise fault


def test_what_a_killed_one_had_published_and_not_noted_counts_for_others_that_run(
    hub: FakeHub, instances: CacheProcesses, running: Running
) -> None:
    hub.put("org/a", ONE_FILE)
    hub.put("org/b", model_files(3 * MIB, seed=1))
    with running.cache as cache:
        died = instances.run(running.root, ["ensure", "hf://org/a"], budget=BUDGET, die_at="publish.rename:after")
        assert died.exit == KILLED
        cache.ensure("hf://org/b")
        assert running.most <= BUDGET
        assert cache.usage().used_bytes == volume_bytes(running.root)


@pytest.mark.parametrize("at", PUBLISHED)
def test_a_disk_that_is_full_right_after_a_file_got_its_name_costs_no_second_fetch(
    at: str, hub: FakeHub, running: Running
) -> None:
    hub.put("org/a", FILES)
    running.fault, running.at = OSError(errno.ENOSPC, "No space left on device"), at
    with running.cache as cache:
        cache.ensure("hf://org/a")
        published = [name for name, digest in SHARDS.items() if digest in running.published]
        assert published
        assert [hub.bytes_sent("org/a", name) - len(FILES[name]) for name in published] == [0] * len(published)
        assert running.most <= BUDGET
        assert cache.usage().used_bytes == volume_bytes(running.root)


def test_what_a_failed_fetch_had_published_and_not_noted_counts_from_its_end_on(
    hub: FakeHub, running: Running
) -> None:
    hub.put("org/a", FILES)
    running.fault = OSError(errno.EIO, "Input/output error")
    with running.cache as cache:
        with pytest.raises(CacheError, match="Input/output error"):
            cache.ensure("hf://org/a")
        assert cache.usage().used_bytes == volume_bytes(running.root)
