"""Of devices that are as good, an engine starts where its weights are on the disk."""

import msgspec
import pytest
from tests.builders.cached_models import USAGE
from tests.builders.conductor import GIB, device, engine, group, model, pod, world

from cotenant_cache.contract import CachedModel, NodeReport
from cotenant_serving.conductor.cached import NodeCache, cache_name, node_weights
from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.load_times import LoadTimes, ModelLoads
from cotenant_serving.conductor.world import Decision, ModelMemory, World

GB = 10**9
COMMIT = "a" * 40
SOURCE = f"hf://org/chat@{COMMIT}"
ASKED = {"search/chat": 1}
HERE, NOT_HERE = NodeCache(frozenset({SOURCE})), NodeCache()


def asked(caches: dict[int, NodeCache], *, loads: LoadTimes | None = None, **more: object) -> World:
    """Pods 1 and 2; `caches`: by pod."""
    chat = model(source=SOURCE, weights=8 * GB)
    return world(
        chat,
        devices=(pod(1), pod(2)),
        demand=ASKED,
        caches={pod(number).node: cache for number, cache in caches.items()},
        loads=loads,
        **more,  # type: ignore[arg-type]
    )


def where(decision: Decision) -> str:
    (start,) = decision.starts
    return start.device.id


def cached(*, present: int = 8 * GB, revisions: tuple[str, ...] = ()) -> CachedModel:
    return CachedModel(
        repo="org/chat",
        commit=COMMIT,
        revisions=revisions,
        size_bytes=8 * GB,
        present_bytes=present,
        files=3,
        verified=True,
    )


def test_an_engine_starts_where_its_weights_are_on_the_disk() -> None:
    assert where(decide(asked({1: NOT_HERE, 2: HERE}))) == pod(2).id
    assert where(decide(asked({1: HERE, 2: NOT_HERE}))) == pod(1).id


def test_a_node_that_has_them_comes_before_one_of_which_nothing_is_known() -> None:
    assert where(decide(asked({2: HERE}))) == pod(2).id


def test_the_emptier_device_is_taken_when_only_its_node_has_the_weights() -> None:
    other = engine(model="b/b", share=4 * GIB, on=pod(1))
    assert where(decide(asked({1: NOT_HERE, 2: HERE}, engines=(other,)))) == pod(2).id
    assert where(decide(asked({}, engines=(other,)))) == pod(1).id


def test_where_it_does_not_fit_the_weights_are_of_no_use() -> None:
    full = engine(model="b/b", share=7 * GIB, running=1, on=pod(2))
    assert where(decide(asked({1: NOT_HERE, 2: HERE}, engines=(full,)))) == pod(1).id


def test_the_group_that_is_preferred_stays_preferred() -> None:
    chat = model(source=SOURCE, groups=("cpu", "big"))
    big = device(group="big", node="10.0.1.9")
    given = world(
        chat,
        devices=(pod(1), big),
        demand=ASKED,
        groups=(group(), group("big")),
        caches={pod(1).node: NOT_HERE, big.node: HERE},
    )
    assert where(decide(given)) == pod(1).id


def test_without_any_knowledge_placement_is_as_it_was() -> None:
    assert where(decide(asked({}))) == where(decide(asked({1: NOT_HERE, 2: NOT_HERE}))) == pod(1).id


def test_the_owner_reads_why_it_is_placed_there() -> None:
    (status,) = decide(asked({2: HERE})).models
    assert status.message.endswith("6.00 GiB stay free; its weights are on this node")


@pytest.mark.parametrize(
    ("loads", "words"),
    [
        (None, "its weights must be fetched: 8.0 GB"),
        (LoadTimes(bytes_per_s={"download": 0.2 * GB}), "its weights must be fetched: 8.0 GB, about 40 s"),
    ],
)
def test_the_owner_reads_that_a_wake_must_download(loads: LoadTimes | None, words: str) -> None:
    (status,) = decide(asked({1: NOT_HERE, 2: NOT_HERE}, loads=loads)).models
    assert status.message.endswith(words)


def test_nothing_is_said_of_weights_where_no_cache_answers() -> None:
    (status,) = decide(asked({})).models
    assert "weights" not in status.message


def test_room_is_made_where_the_weights_are() -> None:
    idle = tuple(engine(model=f"b/{name}", share=7 * GIB, on=pod(n)) for n, name in ((1, "one"), (2, "two")))
    kept = model("b/one", share=7 * GIB), model("b/two", share=7 * GIB)
    given = world(
        model(source=SOURCE, weights=8 * GB),
        *kept,
        devices=(pod(1), pod(2)),
        engines=idle,
        demand=ASKED,
        caches={pod(1).node: NOT_HERE, pod(2).node: HERE},
    )
    assert [delete.app for delete in decide(given).deletes] == ["b.two-r1-0"]


def test_a_model_that_was_downloaded_once_is_cheap_to_bring_back_from_disk() -> None:
    """Its last load took ten minutes; the next one will not."""
    one, two = (engine(model=f"b/{name}", share=4 * GIB) for name in ("one", "two"))
    loads = LoadTimes(
        bytes_per_s={"disk": float(GB)},
        models={
            "b/one": ModelLoads(read_bytes=2 * GB, rest_s=3.0, read_from="disk"),
            "b/two": ModelLoads(read_bytes=50 * GB, rest_s=10.0, read_from="disk"),
        },
    )
    given = world(
        model(share=4 * GIB),
        model("b/one", share=4 * GIB),
        model("b/two", share=4 * GIB),
        engines=(one, two),
        demand=ASKED,
        memory={"b/one": ModelMemory(load_s=600.0), "b/two": ModelMemory(load_s=60.0)},
        loads=loads,
    )
    assert [delete.app for delete in decide(given).deletes] == ["b.one-r1-0"]


def test_only_whole_models_count_by_commit_and_by_what_is_recorded_as_it() -> None:
    report = NodeReport(node="n", usage=USAGE, models=(cached(revisions=("main",)),))
    assert NodeCache.of(report).sources == {SOURCE, "hf://org/chat@main"}
    partial = NodeReport(node="n", usage=USAGE, models=(cached(present=7 * GB),))
    assert NodeCache.of(partial).sources == frozenset()


def test_a_model_that_was_never_checked_is_not_there_until_it_is() -> None:
    """Another tool put it there: an engine would wait for the check, and perhaps for a fetch."""
    unchecked = msgspec.structs.replace(cached(revisions=("main",)), verified=False)
    said = NodeCache.of(NodeReport(node="n", usage=USAGE, models=(unchecked,)))
    assert (said.sources, said.here) == (frozenset(), {})
    assert node_weights([said], [SOURCE])[0].here == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (SOURCE, SOURCE),
        ("hf://org/chat", "hf://org/chat@main"),
        ("file:///models/chat", ""),
        ("", ""),
        ("oci://x", ""),
    ],
)
def test_sources_are_named_as_caches_name_them(source: str, name: str) -> None:
    assert cache_name(source) == name
