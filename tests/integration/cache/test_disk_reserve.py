"""Without a budget some of the disk stays free: what is only preloaded must not bring a node's disk to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.disk import DiskSpace, Volume
from cotenant_cache.errors import CacheFullError, DiskFullError
from cotenant_cache.source import HubAccess
from cotenant_cache.store import PRELOAD_KEPT
from cotenant_cache.supply import HubSupply
from cotenant_serving.weight_cache.__main__ import NEEDED_KEPT, _cache
from cotenant_serving.weight_cache.arguments import read_arguments
from cotenant_serving.weight_cache.peers import PeerSupply

pytestmark = pytest.mark.integration

DISK = 10_000_000


class Disk:
    """Of DISK bytes, of which others use some; `others` is asked before each look."""

    def __init__(self, root: Path, others: Callable[[], int]) -> None:
        self._root, self._others = root, others

    def space(self) -> DiskSpace:
        ours = sum(path.stat().st_size for path in self._root.rglob("*") if self._is_models(path))
        return DiskSpace(DISK - ours - self._others(), DISK)

    def _is_models(self, path: Path) -> bool:
        """Without the ledger and what else an instance needs for itself."""
        below = path.relative_to(self._root).parts
        return path.is_file() and not path.is_symlink() and (below[0] != ".cotenant" or below[1] == "partial")


MakeDisk = Callable[[Callable[[], int]], Disk]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeDisk:
    def put(others: Callable[[], int]) -> Disk:
        made = Disk(tmp_path / "volume", others)
        monkeypatch.setattr(Volume, "disk", lambda volume: made.space())
        return made

    (tmp_path / "volume").mkdir()
    return put


def opened(hub: FakeHub, root: Path, budget: int | None = None, kept_share: float = 0.0) -> Cache:
    return Cache(root, budget, access=HubAccess(endpoint=hub.url, token="none"), kept_share=kept_share)


def test_what_is_only_preloaded_leaves_room_on_the_disk_and_what_is_needed_now_takes_it(
    hub: FakeHub, disk: MakeDisk, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        hub.put(f"org/{name}", model_files(3_000_000, seed=ord(name)))
    disk(lambda: 3_000_000)
    with opened(hub, tmp_path / "volume") as cache:
        cache.ensure("hf://org/a", priority=0)
        with pytest.raises(
            CacheFullError, match=r"the disk has 3\.8 MiB free, 2\.0 MiB have to stay free"
        ) as refused:
            cache.ensure("hf://org/b", priority=0)
        assert "preload with priority 0" in refused.value.message
        assert cache.plan("hf://org/b").fits, "for who asks by hand"
        cache.ensure("hf://org/b")
        assert {model.repo for model in cache.models() if model.whole} == {"org/a", "org/b"}
    assert PRELOAD_KEPT > 0.15, "the largest threshold of a kubelet that is not told another"


@pytest.mark.parametrize("noted", [False, True])
def test_who_has_a_budget_has_said_what_may_be_used(
    hub: FakeHub, disk: MakeDisk, tmp_path: Path, noted: bool
) -> None:
    hub.put("org/a", model_files(3_000_000))
    disk(lambda: 6_000_000)
    if noted:
        Volume(tmp_path / "volume").set_budget(2**40)
    with opened(hub, tmp_path / "volume", None if noted else 2**40, NEEDED_KEPT) as cache:
        cache.ensure("hf://org/a", priority=0)


def test_a_preload_ends_when_others_fill_the_disk_meanwhile_and_leaves_what_has_to_stay_free(
    hub: FakeHub, disk: MakeDisk, tmp_path: Path
) -> None:
    hub.put("org/a", model_files(3_000_000))
    fetched: list[int] = []
    made = disk(lambda: 6_000_000 if fetched else 0)
    with (
        opened(hub, tmp_path / "volume") as cache,
        pytest.raises((CacheFullError, DiskFullError), match="have to stay free"),
    ):
        cache.ensure("hf://org/a", progress=lambda said: fetched.extend([1] * (said.phase == "fetching")), priority=0)
    assert fetched, "it found room at first"
    assert made.space().free_bytes >= PRELOAD_KEPT * DISK


def test_a_sidecar_without_a_budget_stays_above_the_kubelets_threshold_also_for_what_is_needed_now(
    hub: FakeHub, disk: MakeDisk, tmp_path: Path
) -> None:
    hub.put("org/a", model_files(3_000_000))
    others = [6_200_000]
    disk(lambda: others[0])
    words = ["--root", str(tmp_path / "volume"), "--socket", str(tmp_path / "s"), "--hub-endpoint", hub.url]
    supply = PeerSupply(lambda: (), lambda: "", HubSupply())
    with _cache(read_arguments(words), supply) as cache:
        with pytest.raises(CacheFullError, match=r"1\.1 MiB have to stay free because no budget is set"):
            cache.ensure("hf://org/a")
        others[0] = 5_000_000
        cache.ensure("hf://org/a")
    assert NEEDED_KEPT > 0.10, "below that a kubelet evicts the pod"
