"""A node whose weight cache cannot use its volume is the last choice of a model that needs it, and has no model."""

from dataclasses import replace

import pytest
from tests.builders.conductor import GIB, device, engine, group, model, pod, world

from cotenant_serving.conductor.cached import NodeCache, node_weights
from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.load_times import LoadTimes
from cotenant_serving.conductor.world import Device, World
from cotenant_serving.contract import NodeWeights

GB = 10**9
SOURCE = "hf://org/chat@" + "a" * 40
CHAT = model(source=SOURCE, weights=8 * GB)
ASKED = {"search/chat": 1}
HERE, NOT_HERE = NodeCache(frozenset({SOURCE})), NodeCache()
BROKEN = NodeCache(node="node-1", problem=("VolumeUnusable", "/models: Permission denied"))
BY_RATES = LoadTimes(bytes_per_s={"download": 0.1 * GB, "disk": GB}, rest_s=5.0)


def broken(given: World, *devices: Device) -> World:
    return replace(given, unusable_caches={one.node: BROKEN for one in devices})


def where(given: World) -> str:
    (start,) = decide(given).starts
    return start.device.id


@pytest.mark.parametrize("known", [{}, {pod(2).node: NOT_HERE}], ids=["nothing is known", "not there"])
def test_an_engine_starts_on_another_node_although_it_must_fetch_there_as_well(known: dict[str, NodeCache]) -> None:
    given = world(CHAT, devices=(pod(1), pod(2)), demand=ASKED, caches=known)
    assert where(given) == pod(1).id
    assert where(broken(given, pod(1))) == pod(2).id


def test_it_starts_on_another_node_also_where_it_fits_less_well() -> None:
    beside = engine(model="b/b", share=4 * GIB, on=pod(1))
    given = world(CHAT, devices=(pod(1), pod(2)), engines=(beside,), demand=ASKED)
    assert where(broken(given, pod(1))) == pod(2).id


def test_it_starts_on_another_node_also_where_that_is_of_a_group_that_is_liked_less() -> None:
    big = device(group="big", node="10.0.1.9")
    given = world(
        model(source=SOURCE, groups=("cpu", "big")),
        devices=(pod(1), big),
        demand=ASKED,
        groups=(group(), group("big")),
    )
    assert where(given) == pod(1).id
    assert where(broken(given, pod(1))) == big.id


def test_room_is_made_on_another_node() -> None:
    idle = tuple(engine(model=f"b/{name}", share=7 * GIB, on=pod(n)) for n, name in ((1, "one"), (2, "two")))
    kept = model("b/one", share=7 * GIB), model("b/two", share=7 * GIB)
    given = world(CHAT, *kept, devices=(pod(1), pod(2)), engines=idle, demand=ASKED)
    assert [delete.app for delete in decide(broken(given, pod(1))).deletes] == ["b.two-r1-0"]


def test_where_there_is_no_other_it_starts_there_since_the_volume_may_be_well_again() -> None:
    given = broken(world(CHAT, devices=(pod(1),), demand=ASKED), pod(1))
    assert where(given) == pod(1).id


def test_a_folder_needs_no_cache_and_goes_where_it_fits_best() -> None:
    beside = engine(model="b/b", share=4 * GIB, on=pod(1))
    folder = model(source="file:///models/chat")
    given = world(folder, devices=(pod(1), pod(2)), engines=(beside,), demand=ASKED)
    assert where(broken(given, pod(1))) == pod(1).id


def test_such_a_node_has_no_model_whatever_the_others_have() -> None:
    on_it = engine("starting", on=pod(1), source=SOURCE, weights=8 * GB)
    given = world(
        CHAT,
        devices=(pod(1), pod(2)),
        engines=(on_it,),
        demand=ASKED,
        caches={pod(2).node: HERE},
        loads=BY_RATES,
    )
    (known,), (told,) = decide(given).models, decide(broken(given, pod(1))).models
    assert (known.must_fetch, told.must_fetch) == (False, True)
    assert told.eta_s is not None
    assert known.eta_s is not None
    assert told.eta_s >= known.eta_s + 60


def test_where_no_cache_can_be_used_no_node_counts_as_one_that_has_the_model() -> None:
    given = broken(world(CHAT, devices=(pod(1), pod(2))), pod(1))
    assert CHAT.engine is not None
    assert (given.on_disk(CHAT.engine, pod(1)), given.on_disk(CHAT.engine, pod(2))) == (False, False)
    assert given.on_new_disk(CHAT.engine) is False
    assert given.downloads(CHAT.engine) is True


def test_a_pool_without_models_of_a_hub_tells_which_of_its_nodes_have_a_cache_that_cannot_be_used() -> None:
    well = NodeCache(frozenset({SOURCE}), "node-2", here={SOURCE: 8 * GB})
    assert node_weights([BROKEN, well], ["file:///models/chat", ""]) == (
        NodeWeights(node="node-1", problem=BROKEN.problem),
        NodeWeights(node="node-2"),
    )
    assert node_weights([well], []) == ()
