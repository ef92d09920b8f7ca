"""A source that leaves the preload list is fetched no more, and whoever else wants it loses nothing by that."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_nodes import DEADLINE_S, CacheNodes, CacheProgram
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.found import size_of

pytestmark = pytest.mark.integration
SLOWLY = ("--rate", "400k")
"""So that a model does not come to its end before the test does: it takes more than a minute."""
FILES = model_files(40_000_000)
WEIGHTS = "model.safetensors"


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def listed(folder: Path, *sources: str) -> str:
    path = folder / "preload.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"items": [{"source": source} for source in sources]}))
    new.replace(path)
    return str(path)


def came(program: CacheProgram) -> int:
    """Bytes of the weights that are on the disk, and not whole."""
    sizes = [size_of(path) or 0 for path in (program.root / ".cotenant/partial").glob("*/*")]
    return max((size for size in sizes if size > 1_000), default=0)


def fetching(program: CacheProgram) -> set[str]:
    return {fetch["source"] for fetch in program.report().get("fetching", ()) if fetch["phase"] == "fetching"}


def test_a_model_that_leaves_the_list_is_fetched_no_more_and_can_be_evicted(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    hub.put("org/a", FILES)
    program = nodes.start(*SLOWLY, "--preload", listed(tmp_path, "hf://org/a"))
    until(lambda: came(program), "it is being fetched")
    assert program.report()["usage"]["reserved_bytes"]
    listed(tmp_path)
    until(lambda: not program.report().get("fetching"), "it is fetched no more")

    usage = program.report()["usage"]
    assert usage["reserved_bytes"] == 0
    assert 0 < usage["partial_bytes"] < len(FILES[WEIGHTS])
    assert not program.report().get("failed"), "nobody misses it"
    assert not program.models()["org/a"].get("preload")
    status, answer = program.post("/v1/evict", {"sources": ["hf://org/a"], "yes": True})
    assert (status, json.loads(answer).get("refusal", "")) == (200, "")
    assert program.report()["usage"]["used_bytes"] == 0


def test_what_had_come_of_it_is_not_fetched_again(
    hub: FakeHub, nodes: CacheNodes, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", FILES)
    program = nodes.start(*SLOWLY, "--preload", listed(tmp_path, "hf://org/a"))
    until(lambda: came(program), "it is being fetched")
    listed(tmp_path)
    until(lambda: not program.report().get("fetching"), "it is fetched no more")
    before = came(program)
    hub.forget()
    [done] = instances.run(program.root, ["ensure", "hf://org/a"]).of("ensure")
    assert done["files"] == digests(FILES)
    assert hub.bytes_sent("org/a", WEIGHTS) == len(FILES[WEIGHTS]) - before


def test_a_commit_that_is_corrected_does_not_wait_for_the_wrong_one(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    wrong = hub.put("org/a", FILES)
    right = hub.put("org/a", model_files(1_000))
    program = nodes.start(*SLOWLY, "--preload", listed(tmp_path, f"hf://org/a@{wrong}"))
    until(lambda: came(program), "the wrong one is being fetched")
    listed(tmp_path, f"hf://org/a@{right}")

    def whole() -> set[str]:
        models = program.report().get("models", ())
        return {model["commit"] for model in models if model["present_bytes"] == model["size_bytes"]}

    until(lambda: right in whole(), "the right one is here")
    assert wrong not in whole()


def test_a_list_that_is_edited_again_and_again_has_no_more_fetches_at_once_than_it_may(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    for name in "abcd":
        hub.put(f"org/{name}", FILES)
    program = nodes.start(*SLOWLY, "--at-once", "1", "--preload", listed(tmp_path, "hf://org/a"))
    for name in "abcd":
        listed(tmp_path, f"hf://org/{name}")
        until(lambda name=name: fetching(program) == {f"hf://org/{name}@main"}, f"{name} comes")  # type: ignore[misc]
        assert len(program.report()["fetching"]) == 1


def test_one_that_needs_it_now_goes_on_where_the_list_stopped(
    hub: FakeHub, nodes: CacheNodes, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/a", FILES)
    program = nodes.start(*SLOWLY, "--preload", listed(tmp_path, "hf://org/a"))
    until(lambda: came(program), "it is being fetched")
    engine = instances.start(program.root, ["ensure", "hf://org/a", "engine"])
    before = came(program)
    instances.until(lambda: any(line["done"] for line in engine.of("progress")), "the engine hears of it")
    listed(tmp_path)
    [done] = instances.ended(engine).of("ensure")
    assert done.get("files") == digests(FILES), done
    assert [line["phase"] for line in engine.of("progress")].count("resolving") == 1, "it took over"
    assert [first for _, name, first in hub.starts if name == WEIGHTS][-1] >= before


def test_a_source_that_comes_back_to_the_list_goes_on(hub: FakeHub, nodes: CacheNodes, tmp_path: Path) -> None:
    hub.put("org/a", FILES)
    program = nodes.start(*SLOWLY, "--preload", listed(tmp_path, "hf://org/a"))
    until(lambda: came(program), "it is being fetched")
    listed(tmp_path)
    until(lambda: not program.report().get("fetching"), "it is fetched no more")
    before = came(program)
    listed(tmp_path, "hf://org/a")
    until(lambda: came(program) > before, "it goes on")
    assert not program.report().get("failed")
