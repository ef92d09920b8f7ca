"""What another tool has put on a volume in part, or is still putting there: nothing unchecked is served, and a hub's
word counts as soon as there is one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, put_by_hub_client, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache import verifying
from cotenant_cache.adopting import adopt
from cotenant_cache.cache import Cache
from cotenant_cache.contract import ModelFile
from cotenant_cache.disk import Partial
from cotenant_cache.errors import HubUnreachableError, ModelNotFoundError
from cotenant_cache.source import HubAccess, HubSource
from cotenant_cache.store import Store
from cotenant_cache.supply import Listed, Watch

pytestmark = pytest.mark.integration

FILES = {**model_files(shards=2), "additional_chat_templates/rag.jinja": b"{{ messages }}"}
SHARDS = [name for name in FILES if name.endswith(".safetensors")]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def half_downloaded(hub: FakeHub, root: Path) -> tuple[str, Callable[[], None]]:
    """As `hf download` has it before its end: small files are linked, shards are not. → commit, and the end of it."""
    commit = hub.put("org/a", FILES)
    folder = put_by_hub_client(hub.url, "org/a", root)
    away = root.with_name("away")
    away.mkdir()
    moved = [(blob, away / blob.name) for name in SHARDS for blob in [(folder / name).resolve()]]
    links = {folder / name: (folder / name).readlink() for name in SHARDS}
    for blob, kept in moved:
        shutil.move(blob, kept)
    for link in links:
        link.unlink()

    def end() -> None:
        for blob, kept in moved:
            shutil.move(kept, blob)
        for link, to in links.items():
            link.symlink_to(to)

    return commit, end


def fetched_without(lost: str, hub: FakeHub, root: Path) -> str:
    """As a tool leaves it that asks for some files only. → commit"""
    commit = hub.put("org/a", FILES)
    link = put_by_hub_client(hub.url, "org/a", root) / lost
    link.resolve().unlink()
    link.unlink()
    hub.forget()
    return commit


@pytest.mark.parametrize("adopted_between", [False, True])
def test_a_shard_that_came_after_a_download_was_first_seen_is_checked_before_it_is_served(
    adopted_between: bool, hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    root = tmp_path / "volume"
    commit, end = half_downloaded(hub, root)
    hub.set_down(True)
    early = instances.run(root, ["adopt"])
    assert "model-00001-of-00002.safetensors" in early.of("adopt")[0]["adopted"][0]["refusal"]

    end()
    shard = (root / "models--org--a/snapshots" / commit / SHARDS[1]).resolve()
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    calls = [["adopt"]] if adopted_between else []
    offline = instances.run(root, *calls, ["ensure", f"hf://org/a@{commit}"])
    for adopted in offline.of("adopt"):
        assert f"{SHARDS[1]} is not there or not what its digest says" in adopted["adopted"][0]["refusal"]
    assert offline.of("ensure")[0]["error"] == "HubUnreachable"
    assert wrong_files(root) == []

    hub.heal()
    assert instances.run(root, ["ensure", f"hf://org/a@{commit}"]).of("ensure")[0]["files"] == digests(FILES)


def test_a_download_that_was_seen_half_is_served_whole_without_a_hub_once_it_has_ended(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    root = tmp_path / "volume"
    commit, end = half_downloaded(hub, root)
    hub.set_down(True)
    with Cache(root, access=HubAccess(endpoint=hub.url)) as cache:
        assert cache.adopt()[0].refusal
        end()  # the instance lives on, and nothing has looked at the volume since
        assert cache.ensure(f"hf://org/a@{commit}", "engine").size_bytes == sum(map(len, FILES.values()))
        assert {file.name for file in cache.listing("org/a", commit)} == set(FILES)
    served = instances.run(root, ["ensure", f"hf://org/a@{commit}"], ["lease", f"hf://org/a@{commit}", "engine"])
    assert served.of("ensure")[0]["files"] == digests(FILES)
    assert served.of("lease")[0]["lease"]


def test_a_half_download_is_neither_leased_nor_listed_for_other_nodes(hub: FakeHub, tmp_path: Path) -> None:
    root = tmp_path / "volume"
    commit, _ = half_downloaded(hub, root)
    with Cache(root) as cache:
        cache.adopt()
        assert cache.listing("org/a", commit) == ()
        with pytest.raises(ModelNotFoundError, match="is not whole"):
            cache.lease(f"hf://org/a@{commit}", "engine")


def test_a_file_of_a_model_that_is_no_link_to_a_blob_is_not_served(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    """Nobody can say whether it is right."""
    commit = hub.put("org/a", FILES)
    link = put_by_hub_client(hub.url, "org/a", tmp_path) / "tokenizer.json"
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    hub.set_down(True)
    run = instances.run(tmp_path, ["adopt"], ["ensure", f"hf://org/a@{commit}"])
    assert "tokenizer.json leads to no file that was checked" in run.of("adopt")[0]["adopted"][0]["refusal"]
    assert run.of("ensure")[0]["error"] == "HubUnreachable"

    hub.heal()
    assert instances.run(tmp_path, ["ensure", f"hf://org/a@{commit}"]).of("ensure")[0]["files"] == digests(FILES)


def test_what_a_hub_has_listed_stays_listed_without_it(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", FILES)
    instances.run(tmp_path, ["ensure", "hf://org/a"])
    hub.set_down(True)
    assert instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]["files"] == digests(FILES)
    with Cache(tmp_path) as cache:
        assert {file.name for file in cache.listing("org/a", commit)} == set(FILES)


class OtherNode:
    """No hub answers. One node has the model without some of its files, and gives all."""

    def __init__(self, commit: str, files: tuple[ModelFile, ...]) -> None:
        self.says = Listed(commit, files, found=True)

    def listed(self, source: HubSource, left_s: object = None) -> Listed:
        raise HubUnreachableError(f"{source.repo}: down")

    def listed_elsewhere(self, source: HubSource, left_s: object = None) -> Listed:
        return self.says

    def fetch(self, source: HubSource, file: ModelFile, partial: Partial, watch: Watch) -> None:
        partial.write(memoryview(FILES[file.name])[partial.size :])


def test_what_a_hub_has_listed_stays_listed_whatever_another_node_has(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", FILES)
    instances.run(tmp_path, ["ensure", "hf://org/a"], die_at="publish.rename:before#2")
    with Cache(tmp_path) as cache, cache._store.transaction() as tx:
        model = tx.model("org/a", commit)
    assert model is not None
    other = OtherNode(commit, tuple(file for file in model.files if file.name != "tokenizer.json"))
    with Cache(tmp_path, supply=other) as cache:
        assert names(cache.ensure("hf://org/a").folder) == set(FILES)


def test_a_check_that_ends_after_a_hub_has_listed_the_model_leaves_that_listing(hub: FakeHub, tmp_path: Path) -> None:
    root = tmp_path / "volume"
    commit = fetched_without("tokenizer.json", hub, root)
    lacks = ModelFile(name="tokenizer.json", size_bytes=2, digest="d" * 40)
    store = Store(root, None)

    with Cache(root):

        def report(file: ModelFile, done: int) -> None:
            del file, done
            with store.transaction() as tx:
                model = tx.model("org/a", commit)
                if model is not None and model.found:
                    tx.put_model("org/a", commit, [*model.files, lacks])

        adopt(store, "org/a", commit, report, float("inf"))
        with store.transaction() as tx:
            model = tx.model("org/a", commit)
    store.close()
    assert model is not None
    assert (model.found, lacks in model.files) == (False, True)


def test_what_a_tool_did_not_fetch_comes_from_the_hub_and_nothing_else_does(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = fetched_without("tokenizer.json", hub, tmp_path)
    source = f"hf://org/a@{commit}"
    assert instances.run(tmp_path, ["adopt"], ["ensure", source]).of("ensure")[0]["files"] == digests(FILES)
    assert {name for (_, name), sent in hub.sent.items() if sent} - {
        "config.json",
        "model.safetensors.index.json",
    } == {"tokenizer.json"}

    hub.forget()  # it is listed now: the commit needs no hub any more
    assert instances.run(tmp_path, ["ensure", source]).of("ensure")[0]["files"] == digests(FILES)
    assert hub.log == []


def test_what_a_tool_fetched_in_part_is_served_without_a_hub_and_read_once(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = fetched_without("tokenizer.json", hub, tmp_path)
    hub.set_down(True)
    read, look = list[str](), verifying.look

    def looked(path: Path, digest: str, report: Callable[[int], None], **more: bool) -> verifying.Looked | None:
        read.append(digest)
        return look(path, digest, report, **more)

    monkeypatch.setattr(verifying, "look", looked)
    for _ in range(3):  # opening checks as little again as asking does
        with Cache(tmp_path, access=HubAccess(endpoint=hub.url)) as cache:
            for _ in range(2):
                cache.adopt()
                leased = cache.ensure(f"hf://org/a@{commit}", "engine")
                assert names(leased.folder) == set(FILES) - {"tokenizer.json"}
    assert len(read) == len(set(read)) == len(FILES) - 1

    hub.heal()
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url)) as cache:
        assert names(cache.ensure(f"hf://org/a@{commit}").folder) == set(FILES)
    assert len(read) == len(FILES) - 1


def test_a_commit_that_another_tool_put_there_is_served_although_the_hub_knows_it_no_more(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", FILES)
    put_by_hub_client(hub.url, "org/a", tmp_path)
    hub.remove("org/a")
    run = instances.run(tmp_path, ["ensure", f"hf://org/a@{commit}"], ["ensure", "hf://org/a"])
    by_commit, by_branch = run.of("ensure")
    assert by_commit["files"] == digests(FILES)
    assert by_branch["error"] == "ModelNotFound"


def test_who_waits_for_a_check_without_a_hub_gets_the_model_with_it(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    commit = hub.put("org/a", FILES)
    put_by_hub_client(hub.url, "org/a", tmp_path)
    hub.set_down(True)
    askers = [instances.start(tmp_path, ["ensure", f"hf://org/a@{commit}", "engine"]) for _ in range(5)]
    for asker in askers:
        assert instances.ended(asker).of("ensure")[0]["files"] == digests(FILES)
