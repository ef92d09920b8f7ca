"""Histories that Hypothesis draws: instances ensure, lease, evict, die and start again on a volume with a budget."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.builders.cache_processes import KILLED, CacheProcesses, Instance
from tests.builders.cached_models import digests, model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.contract import BLOCK_BYTES

pytestmark = pytest.mark.integration

MODELS = {f"org/m{seed}": model_files(30_000 + 10_000 * seed, seed=seed, shards=1 + seed % 2) for seed in range(4)}
BUDGET = 120_000
"""Of about 180,000 bytes that all of them have."""
STEPS = (
    *("partial.open", "partial.write", "partial.sync", "publish.sync", "publish.rename", "publish.sync_folder"),
    *("link.make", "link.rename", "link.sync", "ref.make", "ref.rename", "unlink.ref", "unlink.snapshot"),
    *("unlink.snapshot_content", "blob.remove", "partial.remove", "repo.remove", "quarantine.rename", "sweep.remove"),
)
a_model = strategies.sampled_from(sorted(MODELS))


class Histories(RuleBasedStateMachine):
    """What must hold is the same after every step: no wrong byte has a name, no lease is broken, the budget holds."""

    instances: CacheProcesses
    hub: FakeHub

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="cache-")
        self.root = Path(self.folder.name)
        self.hub.heal()
        self.holders: list[tuple[str, Instance]] = []

    def teardown(self) -> None:
        for _, holder in self.holders:
            self.instances.kill(holder)
        self.folder.cleanup()

    def run(self, *calls: list[object], **more: object) -> Instance:
        instance = self.instances.run(self.root, *calls, budget=BUDGET, **more)
        assert instance.exit == KILLED or instance.of("open")[0].get("repaired"), instance
        return instance

    @rule(repo=a_model)
    def ensure(self, repo: str) -> None:
        [said] = self.run(["ensure", f"hf://{repo}"]).of("ensure")
        self._judge(repo, said)

    @rule(repos=strategies.lists(a_model, min_size=2, max_size=4))
    def ensure_several_at_once(self, repos: list[str]) -> None:
        calls = [["ensure", f"hf://{repo}", "engine"] for repo in repos]  # else one may evict what another looks at
        askers = [self.instances.start(self.root, call, budget=BUDGET) for call in calls]
        for asker in askers:
            self.instances.ended(asker)
        for repo, asker in zip(repos, askers, strict=True):
            [said] = asker.of("ensure")
            self._judge(repo, said)

    @rule(repo=a_model)
    def ensure_and_hold(self, repo: str) -> None:
        holder = self.instances.start(self.root, ["ensure", f"hf://{repo}", "engine"], ["hold"], budget=BUDGET)
        self.instances.said(holder, "holding")
        [said] = holder.of("ensure")
        self._judge(repo, said)
        if "error" in said:
            self.instances.kill(holder)
        else:
            self.holders.append((repo, holder))

    @rule(number=strategies.integers(0, 10))
    def kill_a_holder(self, number: int) -> None:
        if not self.holders:
            return
        _, holder = self.holders.pop(number % len(self.holders))
        self.instances.kill(holder)

    @rule(
        repo=a_model, step=strategies.sampled_from(STEPS), after=strategies.booleans(), time=strategies.integers(1, 3)
    )
    def die_while_ensuring(self, repo: str, step: str, after: bool, time: int) -> None:
        self.run(["ensure", f"hf://{repo}"], die_at=f"{step}:{'after' if after else 'before'}#{time}")
        self.run()  # the next start repairs

    @rule(repo=a_model)
    def evict(self, repo: str) -> None:
        [said] = self.run(["evict", [f"hf://{repo}"]]).of("evict")
        if any(held == repo for held, _ in self.holders):
            assert "in use by" in said["refusal"]

    @rule(seed=strategies.integers(0, 2**32))
    def a_bit_flips_and_is_looked_for(self, seed: int) -> None:
        blobs = sorted(self.root.glob("models--*/blobs/*"))
        held = {f"models--{repo.replace('/', '--')}" for repo, _ in self.holders}
        blobs = [path for path in blobs if path.parent.parent.name not in held]
        if not blobs:
            return
        draw = random.Random(seed)
        path = draw.choice(blobs)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        [said] = self.run(["verify"]).of("verify")
        assert [bad["digest"] for bad in said["bad"]] == [path.name]

    @rule(down=strategies.booleans())
    def the_hub_goes_or_comes(self, down: bool) -> None:
        self.hub.set_down(down)

    @rule()
    def the_ledger_is_lost(self) -> None:
        if self.holders:  # until they speak again, nobody knows what they hold
            return
        (self.root / ".cotenant").mkdir(exist_ok=True)
        (self.root / ".cotenant/ledger.sqlite").write_bytes(b"")

    def _judge(self, repo: str, said: dict[str, object]) -> None:
        if "error" in said:
            assert said["error"] in ({"CacheFull", "HubUnreachable"} if self.hub.down else {"CacheFull"}), said
        else:
            assert said["files"] == digests(MODELS[repo])

    @invariant()
    def what_has_a_name_is_right(self) -> None:
        assert wrong_files(self.root) == []

    @invariant()
    def the_budget_holds(self) -> None:
        assert volume_bytes(self.root) <= BUDGET + BLOCK_BYTES
        assert volume_bytes(self.root) <= BUDGET

    @invariant()
    def what_is_held_is_there(self) -> None:
        for repo, _ in self.holders:
            [folder] = self.root.glob(f"models--{repo.replace('/', '--')}/snapshots/*")
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODELS[repo]


@pytest.mark.timeout(600)
def test_no_history_shows_a_wrong_byte_breaks_a_lease_or_the_budget(hub: FakeHub, instances: CacheProcesses) -> None:
    for repo, files in MODELS.items():
        hub.put(repo, files)
    Histories.hub, Histories.instances = hub, instances
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=60,
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
