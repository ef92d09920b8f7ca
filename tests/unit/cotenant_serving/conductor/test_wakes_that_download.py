"""A wake that must download says so from its first moment, also where nobody has told yet what a node has."""

from dataclasses import replace

import pytest
from tests.builders.conductor import GIB, device, engine, group, model, pod, spec, world

from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.load_times import LoadTimes, ModelLoads
from cotenant_serving.conductor.world import GroupMemory, World
from cotenant_serving.contract import ModelStatus, Reason, WeightsLoad
from cotenant_serving.contract_gateway import ModelRow

GB = 10**9
NAME, SOURCE = "search/chat", "hf://org/chat@" + "a" * 40
ASKED = {NAME: 1}
RATES = LoadTimes(
    bytes_per_s={"download": 0.1 * GB, "disk": GB, "memory": 4 * GB},
    rest_s=6.0,
    models={NAME: ModelLoads(read_bytes=8 * GB, rest_s=5.0, read_from="disk")},
)
FROM_DISK_S, FROM_HUB_S = 15.0, 90.0
CHAT = model(source=SOURCE, weights=8 * GB)
HERE, NOT_HERE = NodeCache(frozenset({SOURCE})), NodeCache()
AGENT, OTHER_AGENT = "10.0.9.1", "10.0.9.2"
WORDS = "its weights must be fetched: 8.0 GB, about 80 s"
NO_POD = {"devices": (), "groups": (group(most=1),), "loads": RATES}


def status(given: World) -> ModelStatus:
    return next(one for one in decide(given).models if one.model == NAME)


def row(given: World) -> ModelRow:
    return model_row(status(given), CHAT)


def loading(**told: object) -> World:
    """An engine on a pod that has just come and whose cache has not been asked yet."""
    return started("loading", **told)


def started(phase: str = "starting", *, caches: dict[str, NodeCache] | None = None, **told: object) -> World:
    one = engine(phase, on=pod(1), source=SOURCE, weights=8 * GB, **told)  # type: ignore[arg-type]
    given = {"devices": (pod(1),), "engines": (one,), "demand": ASKED, "loads": RATES, "caches": caches}
    return world(CHAT, **given, caches_per_pod=caches is None)  # type: ignore[arg-type]


# Without any worker pod.


@pytest.mark.parametrize(
    ("caches", "per_pod", "expected_s"),
    [
        ({AGENT: NOT_HERE, OTHER_AGENT: NOT_HERE}, False, FROM_HUB_S),
        ({AGENT: HERE, OTHER_AGENT: NOT_HERE}, False, FROM_DISK_S),
        ({AGENT: HERE, OTHER_AGENT: HERE}, False, FROM_DISK_S),
        ({}, False, FROM_DISK_S),
        ({}, True, FROM_HUB_S),
        ({"10.0.1.7": HERE}, True, FROM_HUB_S),
    ],
    ids=["no node has it", "one has", "all have", "nobody told", "own caches", "another pod has"],
)
def test_a_cold_model_is_expected_by_what_the_pod_that_is_to_come_will_find(
    caches: dict[str, NodeCache], per_pod: bool, expected_s: float
) -> None:
    given = world(CHAT, **NO_POD, caches=caches, caches_per_pod=per_pod)  # type: ignore[arg-type]
    assert row(given).eta_s == expected_s
    assert status(given).must_fetch is (expected_s == FROM_HUB_S)


def test_whoever_asks_for_a_cold_model_reads_that_its_weights_must_be_fetched() -> None:
    given = world(CHAT, **NO_POD, caches={AGENT: NOT_HERE})  # type: ignore[arg-type]
    assert row(given).message == ("no engine runs; the first request wakes one; its weights must be fetched: 8.0 GB")


@pytest.mark.parametrize(("caches", "per_pod"), [({AGENT: NOT_HERE}, False), ({}, True)])
def test_a_wake_that_waits_for_its_pod_says_that_a_download_follows_and_how_long_it_takes(
    caches: dict[str, NodeCache], per_pod: bool
) -> None:
    given = world(CHAT, **NO_POD, demand=ASKED, caches=caches, caches_per_pod=per_pod)  # type: ignore[arg-type]
    said = status(given)
    assert (said.reason, said.must_fetch, said.eta_s) == (Reason.POD_PENDING, True, 5 + 80 + 2)
    assert said.message == f"waits for a pod of group cpu, asked for 0 s ago; {WORDS}"
    assert row(given).message.endswith("a device for it is being brought; its weights must be fetched: 8.0 GB")
    assert row(given).eta_s is None, "the pod's own time is not known"


@pytest.mark.parametrize(
    ("remembered", "reason"),
    [
        ({}, Reason.POD_PENDING),
        ({"cpu": GroupMemory(devices=1, pending_since_s=0.0, unavailable_until_s=2000.0)}, Reason.NO_NODE),
    ],
)
def test_a_wake_that_waits_for_a_new_pod_must_fetch_there_whatever_a_pod_without_room_has(
    remembered: dict[str, GroupMemory], reason: Reason
) -> None:
    full = engine(model="b/b", share=7 * GIB, running=1, on=pod(1))
    given = world(
        CHAT,
        model("b/b", share=7 * GIB),
        devices=(pod(1),),
        engines=(full,),
        groups=(group(most=2),),
        demand=ASKED,
        remembered=remembered,
        caches={pod(1).node: HERE},
        loads=RATES,
        caches_per_pod=True,
    )
    said = status(given)
    assert said.reason is reason
    assert WORDS in said.message
    assert (said.must_fetch, said.eta_s) == (True, 5 + 80 + 2)
    assert not status(replace(given, demand={})).must_fetch, "a cold model is expected where its weights are"


def test_a_wake_that_waits_for_its_pod_says_nothing_of_weights_that_are_there_or_that_it_has_not() -> None:
    there = world(CHAT, **NO_POD, demand=ASKED, caches={AGENT: HERE})  # type: ignore[arg-type]
    echo = world(model(), **NO_POD, demand=ASKED, caches_per_pod=True)  # type: ignore[arg-type]
    for given in (there, echo):
        assert "weights" not in status(given).message + row(given).message
        assert not status(given).must_fetch


# On a pod that has just come.


def test_an_engine_of_a_pod_that_keeps_its_own_models_fetches_until_its_cache_says_otherwise() -> None:
    """So no gateway begins a stream for it that would break off."""
    assert row(started()).eta_s == FROM_HUB_S
    assert status(started()).message == f"search.chat-r1-0 starts on 10.0.1.1/cpu/0; {WORDS}"
    assert row(started()).message == "its engine starts; its weights must be fetched: 8.0 GB"
    assert row(started(caches={pod(1).node: HERE})).eta_s == FROM_DISK_S


def test_the_decision_to_start_it_says_so_already() -> None:
    given = world(CHAT, devices=(pod(1),), demand=ASKED, loads=RATES, caches_per_pod=True)
    assert status(given).message.endswith(f"6.00 GiB stay free; {WORDS}")
    assert (row(given).state, row(given).eta_s) == ("waking", FROM_HUB_S)


@pytest.mark.parametrize(
    ("caches", "expected_s"),
    [
        ({AGENT: NOT_HERE}, FROM_HUB_S),
        ({AGENT: NOT_HERE, OTHER_AGENT: HERE}, FROM_HUB_S),
        ({AGENT: HERE, OTHER_AGENT: HERE}, FROM_DISK_S),
        ({}, FROM_DISK_S),
    ],
)
def test_a_node_of_which_nothing_is_known_has_a_model_only_where_all_others_have_it(
    caches: dict[str, NodeCache], expected_s: float
) -> None:
    assert row(started(caches=caches)).eta_s == expected_s


def test_an_engine_that_says_that_it_starts_goes_on_saying_that_it_must_fetch() -> None:
    given = loading(state="loading", stage="opening files", holds_lease=False)
    assert status(given).message == f"search.chat-r1-0 on 10.0.1.1/cpu/0: loading opening files 0 %; {WORDS}"


@pytest.mark.parametrize("told", [{"state": "loading", "holds_lease": True}, {"state": "waiting"}])
def test_an_engine_that_has_its_files_fetches_no_more_whatever_is_known_of_its_node(told: dict[str, object]) -> None:
    given = loading(**told)
    assert row(given).eta_s == FROM_DISK_S
    assert not status(given).must_fetch
    assert "fetched" not in status(given).message + row(given).message


def test_after_its_fetch_an_engine_is_expected_by_the_rest_alone() -> None:
    load = WeightsLoad(fetched_bytes=8 * GB, fetched_s=80)
    assert row(loading(state="loading", age_s=83.0, load=load, holds_lease=True)).eta_s == 10


def test_a_model_that_serves_need_not_fetch() -> None:
    given = world(CHAT, devices=(pod(1),), engines=(engine(source=SOURCE),), caches_per_pod=True)
    assert not status(given).must_fetch


def test_a_folder_is_never_fetched() -> None:
    folder = spec(source="file:///models/chat")
    given = world(CHAT, devices=(device(),), caches={AGENT: NOT_HERE}, caches_per_pod=True)
    assert (given.on_disk(folder, device()), given.downloads(folder)) == (None, None)
