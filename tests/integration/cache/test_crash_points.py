"""Kill -9 before and after each operation that changes the volume: the next start repairs, and fetches what lacks."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.builders.cache_processes import KILLED, CacheProcesses, Instance
from tests.builders.cached_models import digests, model_files, named_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub, Fault
from tests.builders.fake_hub_content import commit_of
from tests.builders.volume_steps import steps_in

from cotenant_cache import disk, partial

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MIB = 2**20
BUDGET = 4 * MIB
IMPATIENT = {"connect_s": 1.0, "stall_s": 1.0}
OLD, NEW = model_files(2 * MIB, seed=1), model_files(3 * MIB, seed=2, shards=2)


def a_bit_flips(root: Path) -> None:
    bad = max((root / "models--org--old/blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(bad.read_bytes())
    content[5_000] ^= 1
    bad.write_bytes(content)


def quarantine(root: Path, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        (root / f".cotenant/quarantine/{number:064}.0").write_bytes(bytes(size))


def a_bit_flips_beside_a_full_quarantine(root: Path) -> None:
    quarantine(root, 1, 1, 1, 1)
    a_bit_flips(root)


def an_operation_was_cut_off(root: Path) -> None:
    (root / ".cotenant/tmp/file").write_bytes(b"x")
    (root / ".cotenant/tmp/folder").mkdir()
    (root / ".cotenant/tmp/folder/file").write_bytes(b"x")


@dataclass(frozen=True)
class Scenario:
    """Calls of an instance on a volume that has `org/old`, or on an empty one; `prepare` changes it before."""

    calls: tuple[list[Any], ...]
    prepare: Callable[[Path], object] = lambda root: None
    faults: tuple[Fault, ...] = ()
    on_empty: bool = False
    at: str = ""
    """What the steps that are meant begin with, where another scenario has the rest."""

    def volume(self, begun: Path, name: str) -> Path:
        root = begun.parent / name.replace("#", "-")
        if self.on_empty:
            root.mkdir()
        else:
            shutil.copytree(begun, root, symlinks=True)
        self.prepare(root)
        return root


EVICTING = Scenario((["ensure", "hf://org/new", "engine"],))
EVICTION = Scenario((["evict", ["hf://org/old"]],))
QUARANTINE = Scenario((["verify"],), a_bit_flips)
OTHERS = {
    "a first model": Scenario((["ensure", "hf://org/old"],), on_empty=True, at="format."),
    "a quarantine that is full": Scenario((["verify"],), a_bit_flips_beside_a_full_quarantine),
    "a quarantine that makes way": Scenario(
        (["ensure", "hf://org/new"],), lambda root: quarantine(root, MIB), at="quarantine."
    ),
    "a hub that sends a wrong byte": Scenario(
        (["ensure", "hf://org/new"],),
        faults=(Fault("flip", "model-00001-of-00002.safetensors", at=5_000),),
        at="partial.restart",
    ),
    "what an earlier kill left": Scenario((["models"],), an_operation_was_cut_off),
    "a budget": Scenario((["set_budget", BUDGET],)),
    "a branch that is noted": Scenario((["note_revision", "org/old", "next", "0" * 40],)),
}


@pytest.fixture
def begun(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> Path:
    """A volume on which `org/old` is whole; `org/new` needs its room."""
    hub.put("org/old", OLD)
    hub.put("org/new", NEW)
    instances.run(tmp_path / "begun", ["ensure", "hf://org/old"], budget=BUDGET)
    return tmp_path / "begun"


@dataclass
class Kills:
    """Runs scenarios. A name that was there before a kill leads to the same file after it, or is gone with all others
    of its model."""

    begun: Path
    hub: FakeHub
    instances: CacheProcesses

    def run(self, scenario: Scenario, root: Path, **more: Any) -> Instance:
        self.hub.heal()
        self.hub.fault(*scenario.faults)
        return self.instances.run(root, *scenario.calls, budget=BUDGET, **more)

    def steps(self, scenario: Scenario, most: int = 1) -> list[str]:
        """Each operation, before and after, the first time and up to `most` more often: `publish.rename:before#2`."""
        root = scenario.volume(self.begun, "steps")
        times = Counter(line["step"] for line in self.run(scenario, root, tell_steps=True).of("step"))
        shutil.rmtree(root)
        draw = random.Random(1)
        return [
            f"{step}#{number}"
            for step, count in sorted(times.items())
            if step.startswith(scenario.at)
            for number in [1, *draw.sample(range(2, count + 1), min(most - 1, count - 1))]
        ]

    def at_each_step(self, scenario: Scenario, most: int = 1) -> Iterator[tuple[str, Path]]:
        """The step, and the volume as the kill left it."""
        for step in self.steps(scenario, most):
            root = scenario.volume(self.begun, step)
            wrong, named = wrong_files(root), named_files(root)
            assert self.run(scenario, root, die_at=step).exit == KILLED, step
            assert set(wrong_files(root)) <= set(wrong), step
            left = named_files(root)
            assert all(left.get(folder, names) == names for folder, names in named.items()), f"{step}: half a model"
            self.hub.heal()
            yield step, root
            shutil.rmtree(root)


@pytest.fixture
def kills(begun: Path, hub: FakeHub, instances: CacheProcesses) -> Kills:
    return Kills(begun, hub, instances)


def fetched_again(hub: FakeHub, root: Path, instances: CacheProcesses) -> list[str]:
    """Ensures `org/new` on a volume as a kill left it; names of files of which more came than was missing."""
    there = {path.name: path.stat().st_size for path in root.glob("models--org--new/blobs/*")}
    begun = {path.name: path.stat().st_size for path in (root / ".cotenant/partial/models--org--new").glob("*")}
    hub.forget()
    run = instances.run(root, *EVICTING.calls, budget=BUDGET)
    assert [line.get("files") for line in run.of("ensure")] == [digests(NEW)], run.lines
    missing = {
        name: 0 if digest in there else len(NEW[name]) - begun.get(digest, 0)
        for name, digest in digests(NEW).items()
        if name.endswith(".safetensors")
    }
    return [name for name, count in missing.items() if hub.bytes_sent("org/new", name) > count]


def test_a_kill_at_any_operation_of_an_ensure_that_evicts_is_repaired(
    kills: Kills, hub: FakeHub, instances: CacheProcesses, full_size: Callable[[int], int]
) -> None:
    for step, root in kills.at_each_step(EVICTING, full_size(10)):
        assert fetched_again(hub, root, instances) == [], step
        assert wrong_files(root) == [], step
        assert volume_bytes(root) <= BUDGET, step
        assert list((root / ".cotenant/tmp").iterdir()) == [], step


def test_a_kill_at_any_operation_of_an_eviction_leaves_the_rest_and_no_half_model(
    kills: Kills, instances: CacheProcesses
) -> None:
    for step, root in kills.at_each_step(EVICTION):
        assert instances.run(root, ["models"], budget=BUDGET).exit == 0
        assert wrong_files(root) == [], step
        [done] = instances.run(root, ["ensure", "hf://org/old"], budget=BUDGET).of("ensure")
        assert done["files"] == digests(OLD), step


def test_a_kill_at_any_operation_of_a_quarantine_serves_no_bad_byte(
    kills: Kills, hub: FakeHub, instances: CacheProcesses
) -> None:
    """Neither at once, with the hub switched off, nor later."""
    pinned = f"hf://org/old@{commit_of('org/old', OLD)}"
    for step, root in kills.at_each_step(QUARANTINE):
        hub.set_down(True)
        at_once = instances.run(
            root, ["ensure", pinned], ["lease", pinned, "engine"], budget=BUDGET, limits=IMPATIENT
        )
        said = at_once.of("ensure") + at_once.of("lease")
        assert [line.get("error") for line in said] == ["HubUnreachable", "ModelNotFound"], step
        assert wrong_files(root) == [], step

        hub.set_down(False)
        run = instances.run(root, ["verify"], ["ensure", "hf://org/old"], budget=BUDGET)
        assert run.of("ensure")[0]["files"] == digests(OLD), step
        assert wrong_files(root) == [], step


@pytest.mark.parametrize("what", OTHERS)
def test_a_kill_at_any_operation_of_what_is_seldom_done_is_repaired(
    what: str, kills: Kills, instances: CacheProcesses
) -> None:
    scenario = OTHERS[what]
    for step, root in kills.at_each_step(scenario):
        run = instances.run(root, *scenario.calls, ["ensure", "hf://org/new"], budget=BUDGET)
        assert run.of("ensure")[-1].get("files") == digests(NEW), f"{step}: {run.lines}"
        assert wrong_files(root) == [], step
        assert volume_bytes(root) <= BUDGET, step
        assert list((root / ".cotenant/tmp").iterdir()) == [], step
        if what == "a budget":
            assert instances.run(root, ["usage"]).of("usage")[0]["budget_bytes"] == BUDGET, step


def test_a_volume_without_its_ledger_is_read_from_the_disk_and_checked_before_it_serves(
    begun: Path, hub: FakeHub, instances: CacheProcesses
) -> None:
    for damage in (b"", b"no database" * 1000):
        root = Scenario(()).volume(begun, f"damaged-{len(damage)}")
        (root / ".cotenant/ledger.sqlite").write_bytes(damage)
        hub.forget()
        run = instances.run(root, ["models"], ["ensure", "hf://org/old"], ["models"], budget=BUDGET)
        before, after = (line["models"][0] for line in run.of("models"))
        assert (before["verified"], after["verified"]) == (False, True)
        assert run.of("ensure")[0]["files"] == digests(OLD)
        assert hub.bytes_sent("org/old", "model.safetensors") == 0


def test_every_operation_of_the_modules_that_write_is_one_at_which_something_dies(kills: Kills) -> None:
    """The tests above die at each step that their scenarios pass; here is that these pass them all."""
    scenarios = (EVICTING, EVICTION, QUARANTINE, *OTHERS.values())
    seen = {step.partition(":")[0] for scenario in scenarios for step in kills.steps(scenario)}
    assert seen == steps_in(disk, partial)
