"""Kill -9 before and after each operation that changes the volume: the next start repairs, and fetches what lacks."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_processes import KILLED, CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache import disk, partial

pytestmark = pytest.mark.integration

MIB = 2**20
BUDGET = 4 * MIB
SELDOM = {"partial.restart", "sweep.remove", "quarantine.remove"}
"""Of a hub that sent a wrong byte, of what a kill left in tmp/, of a quarantine that is full: none touches a name."""
OLD, NEW = model_files(2 * MIB, seed=1), model_files(3 * MIB, seed=2, shards=2)


@pytest.fixture
def begun(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> Path:
    """A volume on which `org/old` is whole; `org/new` needs its room."""
    hub.put("org/old", OLD)
    hub.put("org/new", NEW)
    instances.run(tmp_path / "begun", ["ensure", "hf://org/old"], budget=BUDGET)
    return tmp_path / "begun"


def copy_of(begun: Path, name: str) -> Path:
    return Path(shutil.copytree(begun, begun.parent / name.replace("#", "-"), symlinks=True))


def steps_of(instances: CacheProcesses, root: Path, calls: list[list[str]], most: int) -> list[str]:
    """Each operation, before and after, the first time and up to `most` more often: `publish.rename:before#2`."""
    told = instances.run(root, *calls, budget=BUDGET, tell_steps=True)
    times = Counter(line["step"] for line in told.of("step"))
    draw = random.Random(1)
    return [
        f"{step}#{number}"
        for step, count in sorted(times.items())
        for number in [1, *draw.sample(range(2, count + 1), min(most - 1, count - 1))]
    ]


def fetched_again(hub: FakeHub, root: Path, calls: list[list[str]], instances: CacheProcesses) -> list[str]:
    """Runs the calls on a volume as a kill left it; names of files of which more came than was missing."""
    there = {path.name: path.stat().st_size for path in root.glob("models--org--new/blobs/*")}
    begun = {path.name: path.stat().st_size for path in (root / ".cotenant/partial/models--org--new").glob("*")}
    hub.forget()
    run = instances.run(root, *calls, budget=BUDGET)
    assert [line.get("files") for line in run.of("ensure")] == [digests(NEW)], run.lines
    missing = {
        name: 0 if digest in there else len(NEW[name]) - begun.get(digest, 0)
        for name, digest in digests(NEW).items()
        if name.endswith(".safetensors")
    }
    return [name for name, count in missing.items() if hub.bytes_sent("org/new", name) > count]


def test_a_kill_at_any_operation_of_an_ensure_that_evicts_is_repaired(
    begun: Path, hub: FakeHub, instances: CacheProcesses, full_size: Callable[[int], int]
) -> None:
    calls = [["ensure", "hf://org/new", "engine"]]
    steps = steps_of(instances, copy_of(begun, "steps"), calls, full_size(10))
    names = {step.partition(":")[0] for step in steps}
    assert names >= {"partial.write", "publish.rename", "link.rename", "ref.rename", "unlink.snapshot", "blob.remove"}
    for step in steps:
        root = copy_of(begun, step)
        killed = instances.run(root, *calls, budget=BUDGET, die_at=step)
        assert killed.exit == KILLED, step
        assert wrong_files(root) == [] or step.startswith(("unlink.", "blob.", "repo.")), step

        assert fetched_again(hub, root, calls, instances) == [], step
        assert wrong_files(root) == [], step
        assert volume_bytes(root) <= BUDGET, step
        assert list((root / ".cotenant/tmp").iterdir()) == [], step
        shutil.rmtree(root)


def test_a_kill_at_any_operation_of_an_eviction_leaves_the_rest_and_no_half_model(
    begun: Path, hub: FakeHub, instances: CacheProcesses
) -> None:
    calls = [["evict", ["hf://org/old"]]]
    for step in steps_of(instances, copy_of(begun, "steps"), calls, 1):
        root = copy_of(begun, step)
        killed = instances.run(root, *calls, budget=BUDGET, die_at=step)
        assert killed.exit == KILLED, step
        assert instances.run(root, ["models"], budget=BUDGET).exit == 0
        assert wrong_files(root) == [], step
        hub.forget()
        [done] = instances.run(root, ["ensure", "hf://org/old"], budget=BUDGET).of("ensure")
        assert done["files"] == digests(OLD), step
        shutil.rmtree(root)


def test_a_kill_at_any_operation_of_a_quarantine_serves_no_bad_byte(
    begun: Path, hub: FakeHub, instances: CacheProcesses
) -> None:
    bad = max((begun / "models--org--old/blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(bad.read_bytes())
    content[5_000] ^= 1
    bad.write_bytes(content)
    for step in steps_of(instances, copy_of(begun, "steps"), [["verify"]], 1):
        root = copy_of(begun, step)
        killed = instances.run(root, ["verify"], budget=BUDGET, die_at=step)
        assert killed.exit == KILLED, step
        run = instances.run(root, ["verify"], ["ensure", "hf://org/old"], budget=BUDGET)
        assert run.of("ensure")[0]["files"] == digests(OLD), step
        assert wrong_files(root) == [], step
        shutil.rmtree(root)


def test_a_volume_without_its_ledger_is_read_from_the_disk_and_checked_before_it_serves(
    begun: Path, hub: FakeHub, instances: CacheProcesses
) -> None:
    for damage in (b"", b"no database" * 1000):
        root = copy_of(begun, f"damaged-{len(damage)}")
        (root / ".cotenant/ledger.sqlite").write_bytes(damage)
        hub.forget()
        run = instances.run(root, ["models"], ["ensure", "hf://org/old"], ["models"], budget=BUDGET)
        before, after = (line["models"][0] for line in run.of("models"))
        assert (before["verified"], after["verified"]) == (False, True)
        assert run.of("ensure")[0]["files"] == digests(OLD)
        assert hub.bytes_sent("org/old", "model.safetensors") == 0


def test_every_operation_of_the_module_that_writes_is_among_those_at_which_something_dies(
    begun: Path, hub: FakeHub, instances: CacheProcesses
) -> None:
    """The three tests above die wherever one of these scenarios passes; here is that they pass everywhere."""
    source = "".join(Path(module.__file__).read_text() for module in (disk, partial))
    written = set(re.findall(r'_step\("([a-z_.]+)"\)', source))
    written |= set(re.findall(r'_away\([^"]*"([a-z_.]+)"\)', source))
    written |= {f"{name}.{part}" for name in ("ref", "format") for part in ("make", "rename", "sync")}
    bad = copy_of(begun, "bad")
    blob = max((bad / "models--org--old/blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(bytes(blob.stat().st_size))
    seen = set()
    for root, call in (
        (begun.parent / "fresh", ["ensure", "hf://org/old"]),
        (copy_of(begun, "one"), ["ensure", "hf://org/new"]),
        (copy_of(begun, "two"), ["evict", ["hf://org/old"]]),
        (bad, ["verify"]),
    ):
        told = instances.run(root, call, budget=BUDGET, tell_steps=True)
        seen |= {line["step"].partition(":")[0] for line in told.of("step")}
    assert written - seen == SELDOM
