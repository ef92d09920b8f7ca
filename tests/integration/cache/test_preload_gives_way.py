"""A preload that is being fetched gives way to what is needed now, whichever instances of the volume have the two."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_nodes import DEADLINE_S, CacheNodes, CacheProgram
from tests.builders.cache_processes import CacheProcesses, Instance
from tests.builders.cached_models import digests, model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.giving_way import Word, is_needed
from cotenant_cache.holders import flight_taken
from cotenant_cache.store import flight_key

pytestmark = pytest.mark.integration
SLOWLY = ("--rate", "400k")
LARGE, SMALL = model_files(40_000_000), model_files(30_000_000, seed=1)
"""The preload, which takes more than a minute, and what is needed now. There is room for one of them."""
BUDGET = 50_000_000


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def preloading(nodes: CacheNodes, folder: Path, source: str, root: Path | None = None) -> CacheProgram:
    path = folder / "preload.json"
    path.write_text(json.dumps({"items": [{"source": source}]}))
    return nodes.start(*SLOWLY, "--budget", str(BUDGET), "--preload", str(path), root=root)


def begun(program: CacheProgram) -> int:
    return int(program.report()["usage"]["partial_bytes"])


def failures(program: CacheProgram) -> set[str]:
    return {failed["reason"] for failed in program.report().get("failed", ())}


def shown(root: Path, repo: str, word: Word) -> bool:
    return flight_taken(root, f"{flight_key(repo)}@{word}")


def stopped_preload(instances: CacheProcesses, root: Path) -> Instance:
    """In the middle of `org/large`."""
    preload = instances.start(
        root, ["ensure", "hf://org/large", "", None, 0], budget=BUDGET, stop_at="partial.write:after#9"
    )
    instances.said(preload, "stopped")
    return preload


@pytest.fixture
def models(hub: FakeHub) -> None:
    hub.put("org/large", LARGE)
    hub.put("org/small", SMALL)


@pytest.mark.usefixtures("models")
def test_a_model_that_is_needed_now_gets_the_room_of_a_preload_that_is_on_its_way(
    nodes: CacheNodes, instances: CacheProcesses, tmp_path: Path
) -> None:
    one = preloading(nodes, tmp_path, "hf://org/large")
    two = preloading(nodes, tmp_path, "hf://org/large", one.root)  # which waits for the first, and does not take over
    until(lambda: begun(one), "the preload is on its way")
    engine = instances.start(one.root, ["ensure", "hf://org/small", "engine"], ["hold"], budget=BUDGET)
    instances.said(engine, "holding")
    [done] = engine.of("ensure")
    assert done.get("files") == digests(SMALL), done

    for program in (one, two):  # tried again, and refused for as long as the other is in use
        until(lambda program=program: failures(program) == {"CacheFull"}, "the preload is refused")  # type: ignore[misc]
    assert one.models()["org/small"]["leases"] == 1
    instances.kill(engine)
    until(lambda: begun(one), "the preload goes on when there is room")


@pytest.mark.usefixtures("models")
def test_who_asks_by_an_instance_that_preloads_itself_gets_the_room_too(nodes: CacheNodes, tmp_path: Path) -> None:
    program = preloading(nodes, tmp_path, "hf://org/large")
    until(lambda: begun(program), "the preload is on its way")
    seen = []
    for line in program.lines("/v1/ensure", {"source": "hf://org/small", "lease": "engine", "deadline_s": 0}):
        seen.append(line)
        if line["phase"] in ("failed", "done") or (line["phase"] == "fetching" and line.get("done_bytes")):
            break
    assert seen[-1]["phase"] == "fetching", seen


def test_a_commit_that_is_needed_now_does_not_wait_for_the_preload_of_another(
    hub: FakeHub, nodes: CacheNodes, instances: CacheProcesses, tmp_path: Path
) -> None:
    old, new = hub.put("org/a", LARGE), hub.put("org/a", model_files(1_000))
    program = preloading(nodes, tmp_path, f"hf://org/a@{old}")
    until(lambda: begun(program), "the preload is on its way")
    [done] = instances.run(program.root, ["ensure", f"hf://org/a@{new}"]).of("ensure")
    assert done.get("commit") == new, done
    until(lambda: begun(program) and program.report().get("fetching"), "the preload goes on")


@pytest.mark.usefixtures("models")
def test_a_preload_that_somebody_waits_for_goes_on(instances: CacheProcesses, tmp_path: Path) -> None:
    preload = stopped_preload(instances, tmp_path)
    engine = instances.start(tmp_path, ["ensure", "hf://org/large", "engine"], budget=BUDGET)
    until(lambda: is_needed(tmp_path, flight_key("org/large")), "an engine waits for it")
    [refused] = instances.run(tmp_path, ["ensure", "hf://org/small"], budget=BUDGET).of("ensure")
    assert refused.get("error") == "CacheFull", refused
    instances.go_on(preload)
    for asker in (preload, engine):
        assert instances.ended(asker).of("ensure")[0].get("files") == digests(LARGE)


def test_a_preload_does_not_end_for_what_does_not_fit_without_it_either(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    hub.put("org/large", LARGE)
    hub.put("org/larger", model_files(BUDGET))
    preload = stopped_preload(instances, tmp_path)
    [refused] = instances.run(tmp_path, ["ensure", "hf://org/larger"], budget=BUDGET).of("ensure")
    assert refused.get("error") == "CacheFull", refused
    assert not shown(tmp_path, "org/large", "wanted")
    instances.go_on(preload)
    assert instances.ended(preload).of("ensure")[0].get("files") == digests(LARGE)


@pytest.mark.usefixtures("models")
def test_one_that_asked_and_was_killed_stops_no_preload(instances: CacheProcesses, tmp_path: Path) -> None:
    preload = stopped_preload(instances, tmp_path)
    engine = instances.start(tmp_path, ["ensure", "hf://org/small"], budget=BUDGET)
    until(lambda: shown(tmp_path, "org/large", "wanted"), "it asks for the room")
    instances.kill(engine)
    instances.go_on(preload)
    assert instances.ended(preload).of("ensure")[0].get("files") == digests(LARGE)


@pytest.mark.usefixtures("models")
def test_a_preload_that_was_asked_and_killed_is_no_more_in_the_way(instances: CacheProcesses, tmp_path: Path) -> None:
    preload = stopped_preload(instances, tmp_path)
    engine = instances.start(tmp_path, ["ensure", "hf://org/small"], budget=BUDGET)
    until(lambda: shown(tmp_path, "org/large", "wanted"), "it asks for the room")
    instances.kill(preload)
    assert instances.ended(engine).of("ensure")[0].get("files") == digests(SMALL)


@pytest.mark.usefixtures("models")
def test_what_is_fetched_for_somebody_who_needs_it_now_ends_for_nobody(
    instances: CacheProcesses, tmp_path: Path
) -> None:
    first = instances.start(tmp_path, ["ensure", "hf://org/large"], budget=BUDGET, stop_at="partial.write:after#9")
    instances.said(first, "stopped")
    [refused] = instances.run(tmp_path, ["ensure", "hf://org/small"], budget=BUDGET).of("ensure")
    assert refused.get("error") == "CacheFull", refused
    instances.go_on(first)
    assert instances.ended(first).of("ensure")[0].get("files") == digests(LARGE)
