"""Models that another user put on the volume, such as root with a hub tool: they are served, and block nobody."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses, Instance, asking
from tests.builders.cached_models import digests, model_files, put_by_hub_client
from tests.builders.fake_hub import FakeHub

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files to a process of another user"),
]

USER = 1000
SIZE = 100_000
THEIRS = model_files(SIZE, seed=1)
FIRST, SECOND = model_files(SIZE, seed=2), model_files(SIZE, seed=3)
TWO_MODELS = sum(map(len, (*THEIRS.values(), *FIRST.values())))


@pytest.fixture
def root(hub: FakeHub) -> Iterator[Path]:
    """A volume of USER with a model of root on it. Folders of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        hub.put("org/theirs", THEIRS)
        hub.put("org/first", FIRST)
        hub.put("org/second", SECOND)
        root = Path(made) / "volume"
        put_by_hub_client(hub.url, "org/theirs", root)
        Path(made).chmod(0o755)
        os.chown(root, USER, USER)
        yield root


@pytest.fixture
def instances(hub: FakeHub, root: Path) -> Iterator[CacheProcesses]:
    """They may not read what root has at home."""
    with CacheProcesses({**asking(hub.url), "HF_HOME": str(root.parent / "home")}) as processes:
        yield processes


def commit_of(root: Path) -> str:
    [snapshot] = (root / "models--org--theirs/snapshots").iterdir()
    return snapshot.name


def blob_of(root: Path) -> Path:
    return (root / "models--org--theirs/snapshots" / commit_of(root) / "model.safetensors").resolve()


def run(instances: CacheProcesses, root: Path, *calls: list[object], budget: int | None = None) -> Instance:
    return instances.run(root, *calls, budget=budget, user=USER)


def test_a_model_of_another_user_is_served_and_others_make_way_instead_of_it(
    hub: FakeHub, instances: CacheProcesses, root: Path
) -> None:
    done = run(
        instances,
        root,
        ["adopt"],
        ["ensure", "hf://org/theirs"],
        ["ensure", "hf://org/first"],
        ["plan", "hf://org/second"],
        ["ensure", "hf://org/second"],
        budget=TWO_MODELS + 1_000,
    )
    theirs, _, second = done.of("ensure")
    assert theirs["files"] == digests(THEIRS)
    [plan] = done.of("plan")
    assert [gone["repo"] for gone in plan["evict"]] == ["org/first"]
    assert any("org/theirs" in kept and "belongs to another user" in kept for kept in plan["kept"])
    assert second.get("files") == digests(SECOND), second
    assert {path.name for path in root.glob("models--*")} == {"models--org--theirs", "models--org--second"}


def test_a_model_of_another_user_is_served_without_what_only_that_user_could_add(
    hub: FakeHub, instances: CacheProcesses, root: Path
) -> None:
    source = f"hf://org/theirs@{commit_of(root)}"
    lost = root / "models--org--theirs/snapshots" / commit_of(root) / "tokenizer.json"
    lost.resolve().unlink()
    lost.unlink()
    done = run(instances, root, ["ensure", source, "engine"], ["ensure", source])
    rest = {name: content for name, content in THEIRS.items() if name != lost.name}
    for ensured in done.of("ensure"):
        assert ensured.get("files", ensured) == digests(rest)


def test_what_does_not_fit_beside_a_model_of_another_user_is_refused_with_that_reason(
    hub: FakeHub, instances: CacheProcesses, root: Path
) -> None:
    commit = commit_of(root)
    done = run(
        instances,
        root,
        ["ensure", "hf://org/first"],
        ["evict", [f"hf://org/theirs@{commit}"]],
        ["evict", [], 10],
        budget=TWO_MODELS // 2 + 1_000,
    )
    [refused] = done.of("ensure")
    assert refused["error"] == "CacheFull"
    for said in (refused["message"], *(evicted["refusal"] for evicted in done.of("evict"))):
        assert f"hf://org/theirs@{commit}: belongs to another user" in said
    assert blob_of(root).exists()


def test_a_model_of_another_user_that_lacks_a_blob_keeps_nobody_from_the_volume(
    hub: FakeHub, instances: CacheProcesses, root: Path
) -> None:
    source = f"hf://org/theirs@{commit_of(root)}"
    run(instances, root, ["adopt"])
    blob_of(root).unlink()
    done = run(instances, root, ["ensure", "hf://org/first"])
    assert "error" not in done.of("open")[0], done.lines
    assert done.of("ensure")[0]["files"] == digests(FIRST)

    hub.set_down(True)
    [refused] = run(instances, root, ["ensure", source]).of("ensure")
    assert refused["error"] == "HubUnreachable"


def test_a_bad_blob_of_another_user_is_told_and_not_served_and_ends_no_round_of_checks(
    hub: FakeHub, instances: CacheProcesses, root: Path
) -> None:
    source = f"hf://org/theirs@{commit_of(root)}"
    run(instances, root, ["ensure", source], ["ensure", "hf://org/first"])
    bad = blob_of(root)
    bad.write_bytes(bad.read_bytes()[:-1] + b"x")
    hub.set_down(True)
    done = run(instances, root, ["verify"], ["check_in_background"], ["ensure", source])
    for said in done.of("verify"):
        assert [(one["digest"], one["quarantined"]) for one in said["bad"]] == [(bad.name, False)]
        assert said["blobs"] == len(THEIRS) + len(FIRST)
    assert done.of("check_in_background")[0]["bad"] == 1
    assert done.of("ensure")[0]["error"] == "HubUnreachable"
