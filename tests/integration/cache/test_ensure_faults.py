"""Every fault of a hub while an instance ensures a model on a volume that has just room enough for it."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.builders.cache_processes import CacheProcesses, Instance, asking
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FAULTS, FakeHub, Fault

from cotenant_cache.backoff import Patience

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEEDS = 30
OLD = model_files(500_000, seed=1)
LARGE, SMALL = "model.safetensors", "tokenizer.json"
COMMIT_BYTES = 40
"""A branch's, on its way to `refs/`."""
SLOW = ("stall", "drip", "stall_chunked", "drip_chunked")
"""What only a limit ends, which a busy machine may reach without them."""
PATIENCE = Patience(attempts=8, first_s=0.01, longest_s=0.05)
HARMLESS = ("wrong_etag", "range_ignored", "longer")
"""However often they come."""
ERRORS = {
    "flip": "CorruptWeights",
    "other_content": "CorruptWeights",
    "revision": "CorruptWeights",
    "truncated_right": "CorruptWeights",
    "gone": "ModelNotFound",
}
"""What a fault may end in; all others: HubUnreachable."""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    fake.put("org/old", OLD)
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def instances(hub: FakeHub) -> Iterator[CacheProcesses]:
    """For all kinds together: a program of their own costs each more than its cases."""
    with CacheProcesses(asking(hub.url)) as processes:
        yield processes


@pytest.mark.parametrize("kind", FAULTS)
def test_an_ensure_ends_right_or_in_a_clear_error_and_keeps_the_budget(
    kind: str, hub: FakeHub, instances: CacheProcesses, tmp_path: Path, full_size: Callable[[int], int]
) -> None:
    hub.heal()
    instances.run(tmp_path / "begun", ["ensure", "hf://org/old"])
    for seed in range(full_size(SEEDS)):
        root = Path(shutil.copytree(tmp_path / "begun", tmp_path / str(seed), symlinks=True))
        chance = random.Random(f"{kind} {seed}")
        files = model_files(chance.randrange(600_000, 3 * 2**20), seed=100 + seed)
        hub.put("org/new", files)
        fault = drawn_fault(kind, files, chance)
        hub.fault(fault)
        came = ensure(instances, root, files, watch_bytes=True, watch_names=True, limits=limits_for(kind))
        [said] = came.of("ensure")
        judge(said, files, fault)
        assert came.of("most")[0]["bytes"] <= room_for(files) + COMMIT_BYTES, f"seed {seed}"
        assert came.of("wrong")[0]["names"] == wrong_files(root) == [], f"seed {seed}"
        hub.heal()
        if "error" in said:
            [again] = ensure(instances, root, files).of("ensure")
            assert again.get("files") == digests(files), f"seed {seed}: {again}"
        assert volume_bytes(root) == room_for(files), f"seed {seed}"
        shutil.rmtree(root)


def drawn_fault(kind: str, files: dict[str, bytes], chance: random.Random) -> Fault:
    name = chance.choice((LARGE, LARGE, SMALL))
    dripping = {"drip": 0.01, "drip_chunked": 0.01}
    value = {"flip": chance.randrange(8), "revision": 1, "rate_limit_after": 0, **dripping}.get(kind, 100_000)
    return Fault(
        kind, name, at=chance.randrange(len(files[name])), times=chance.choice((1, 1, 2, 4, -1)), value=value
    )


def limits_for(kind: str) -> dict[str, Any]:
    short = {"stall_s": 0.25, "slow_bytes_per_s": 1000, "slow_s": 0.25} if kind in SLOW else {}
    return {"patience": asdict(PATIENCE), **short}


def room_for(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


def ensure(instances: CacheProcesses, root: Path, files: dict[str, bytes], **more: Any) -> Instance:
    return instances.run(root, ["ensure", "hf://org/new"], budget=room_for(files), **more)


def judge(said: dict[str, Any], files: dict[str, bytes], fault: Fault) -> None:
    if "error" not in said:
        assert said["files"] == digests(files), fault
        return
    assert fault.kind not in HARMLESS, said
    lasting = fault.times == -1 or fault.kind in ("nowhere", "gone") or fault.kind in SLOW
    assert lasting or (fault.times > 1 and fault.kind in ERRORS), f"{fault}: {said}"
    assert said["error"] == ERRORS.get(fault.kind, "HubUnreachable"), f"{fault}: {said}"
    assert "org/new" in said["message"]
