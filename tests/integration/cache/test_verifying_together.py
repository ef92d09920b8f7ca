"""Several instances that check one volume: a byte is read once a round, whoever reads it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.adopting import adopt
from cotenant_cache.cache import Cache
from cotenant_cache.contract import ModelFile
from cotenant_cache.store import Clock, Store
from cotenant_serving.weight_cache.verification import Verification

pytestmark = pytest.mark.integration

KIB = 2**10
HOUR_S, DAY_S = 3600.0, 86_400.0
YESTERDAY = replace(Clock(), now=lambda: Clock().now() - DAY_S)


@pytest.fixture
def volume(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> Path:
    """Three models in eight shards each, which nobody has read since yesterday."""
    root = tmp_path / "volume"
    for seed in range(3):
        hub.put(f"org/m{seed}", model_files(800 * KIB, seed=seed, shards=8))
    instances.run(root, *(["ensure", f"hf://org/m{seed}"] for seed in range(3)))
    with Cache(root, clock=YESTERDAY) as cache:
        cache.verify()
    return root


def blob_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("models--*/blobs/*"))


def slow(call: Callable[[], object]) -> Clock:
    """A clock for which a rate always is too fast; `call` is made in its first wait. No second passes."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            call()

    return replace(Clock(), monotonic=lambda: sum(slept), sleep=sleep)


def test_three_instances_that_check_at_once_read_the_volume_once(volume: Path, instances: CacheProcesses) -> None:
    together = [instances.start(volume, ["check_in_background"]) for _ in range(3)]
    read = [instances.ended(one).of("check_in_background")[0]["bytes"] for one in together]
    assert sum(read) == blob_bytes(volume)
    again = instances.run(volume, ["check_in_background"]).of("check_in_background")[0]
    assert again["bytes"] == 0, "all of it was read less than an hour ago"


def test_what_somebody_verified_while_a_round_went_on_is_not_read_again(volume: Path) -> None:
    with Cache(volume) as other, Cache(volume, clock=slow(other.verify)) as cache:
        found = cache.verify(rate_bytes_per_s=KIB)
    assert found.blobs == 1, "the one that it was reading"


def test_while_one_instance_checks_another_reads_nothing_and_takes_over_where_that_one_ended(volume: Path) -> None:
    read_by_other = []

    def other_round() -> None:
        with Cache(volume) as other:
            verification = Verification(other, KIB)
            verification.round()
            read_by_other.append(verification.read_bytes)

    with Cache(volume, clock=slow(other_round)) as cache:
        seen = [0]

        def stop() -> bool:
            seen[0] += 1
            return seen[0] > 20

        with cache.turn("verification") as ours:
            assert ours
            found = cache.verify(rate_bytes_per_s=KIB, stop=stop)
    assert read_by_other == [0]
    assert 0 < found.bytes < blob_bytes(volume)

    with Cache(volume) as next_one:
        verification = Verification(next_one, 2**40)
        verification.round()
    cut_off = max(path.stat().st_size for path in volume.glob("models--*/blobs/*"))
    assert blob_bytes(volume) - found.bytes <= verification.read_bytes <= blob_bytes(volume) - found.bytes + cut_off


def test_what_was_verified_within_the_time_between_rounds_is_left_out_unless_the_clock_went_back(
    volume: Path,
) -> None:
    with Cache(volume) as cache:
        assert cache.verify(every_s=2 * DAY_S).blobs == 0
        every_blob = cache.verify(every_s=HOUR_S).blobs
        assert cache.verify(every_s=HOUR_S).blobs == 0
        assert cache.verify().blobs == every_blob
    with Cache(volume, clock=YESTERDAY) as cache:
        assert cache.verify(every_s=HOUR_S).blobs == every_blob


def test_a_model_of_another_tool_that_two_instances_check_at_once_is_read_once(volume: Path, tmp_path: Path) -> None:
    root = tmp_path / "found"
    shutil.copytree(volume / "models--org--m0", root / "models--org--m0", symlinks=True)
    [commit] = (path.name for path in (root / "models--org--m0/snapshots").iterdir())
    read: list[str] = []

    with Cache(root) as other:
        store = Store(root, None)

        def report(file: ModelFile, done: int) -> None:
            del done
            if not read:
                assert [adopted.refusal for adopted in other.adopt()] == [""]
            read.append(file.digest)

        assert adopt(store, "org/m0", commit, report, float("inf")).refusal == ""
        store.close()
    assert len(set(read)) == 1
