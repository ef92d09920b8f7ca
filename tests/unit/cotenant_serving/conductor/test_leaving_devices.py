"""Nodes that are being drained: what is there serves until others do its work, and nothing more starts there."""

from dataclasses import replace

import pytest
from tests.builders.conductor import GIB, engine, group, model, pod, world

from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.world import ADOPTION_S, ModelMemory

OLD, NEW = pod(1, leaving=True), pod(2)
THERE = engine(on=OLD, running=1)
ASKED = {"search/chat": 1}
GROUPS = (group(most=1),)


def deleted(decision):
    return [delete.app for delete in decision.deletes]


def test_a_pod_is_asked_for_beside_the_one_that_leaves_and_its_engine_serves_on():
    decision = decide(world(model(min_engines=1), engines=(THERE,), devices=(OLD,), groups=GROUPS))
    assert (decision.pods, deleted(decision)) == ({"cpu": 1}, [])


def test_a_model_that_was_used_lately_is_taken_along_and_one_that_was_not_is_let_go():
    idle = engine(on=OLD, idle_s=60.0)
    lately = {"search/chat": ModelMemory(last_demand_s=970.0)}
    assert decide(world(model(), engines=(idle,), devices=(OLD,), groups=GROUPS, memory=lately)).pods == {"cpu": 1}
    decision = decide(world(model(), engines=(idle,), devices=(OLD,), groups=GROUPS))
    assert (decision.pods, deleted(decision)) == ({}, [idle.args.app])


def test_its_successor_starts_on_a_device_that_stays():
    decision = decide(world(model(), engines=(THERE,), devices=(OLD, NEW), groups=GROUPS, demand=ASKED))
    assert [start.device for start in decision.starts] == [NEW]
    assert deleted(decision) == []


def test_it_goes_once_its_successor_is_ready_though_it_runs_requests_which_it_finishes():
    for phase, gone in (("loading", []), ("ready", [THERE.args.app])):
        there = (THERE, engine(phase, on=NEW, slot=1))
        decision = decide(world(model(), engines=there, devices=(OLD, NEW), groups=GROUPS, demand=ASKED))
        assert deleted(decision) == gone
        assert decision.starts == ()


def test_idle_engines_make_room_for_one_that_is_promised_before_its_node_has_gone():
    there = (engine(share=6 * GIB, on=OLD), engine(model="a/a", share=6 * GIB, on=NEW, idle_s=60.0))
    models = (model(share=6 * GIB, min_engines=1), model("a/a", share=6 * GIB))
    lately = {"a/a": ModelMemory(last_demand_s=970.0)}
    decision = decide(world(*models, engines=there, devices=(OLD, NEW), memory=lately))
    assert deleted(decision) == [there[1].args.app]


def test_no_engine_makes_room_that_takes_the_place_of_one_on_a_drained_node():
    two = tuple(engine(share=6 * GIB, slot=slot, on=pod(slot, leaving=True)) for slot in (1, 2))
    successor = engine(share=6 * GIB, slot=3, on=pod(3), idle_s=60.0)
    models = (model(share=6 * GIB, min_engines=2, max_engines=2), model("a/a", share=4 * GIB))
    where = (pod(1, leaving=True), pod(2, leaving=True), pod(3))
    decision = decide(world(*models, engines=(*two, successor), devices=where, demand={"a/a": 1}))
    assert deleted(decision) == []


def on_its_own(leaving, *, share=2 * GIB, **old):
    """What is decided for a model that is asked for, where `old` alone holds 6 of the 8 GiB of the only device."""
    there = engine(share=6 * GIB, on=pod(1, leaving=leaving), idle_s=60.0, **old)
    lately = {"a/a": ModelMemory(last_demand_s=970.0)}
    models = (model("a/a", share=6 * GIB), model(share=share))
    where = (pod(1, leaving=leaving),)
    return decide(world(*models, engines=(there,), devices=where, groups=(group(),), demand=ASKED, memory=lately))


@pytest.mark.parametrize("leaving", [False, True])
def test_nothing_is_placed_evicted_or_replaced_on_a_device_that_leaves(leaving):
    placed = on_its_own(leaving, model="a/a")
    assert (len(placed.starts), deleted(placed)) == (not leaving, [])
    evicted = on_its_own(leaving, model="a/a", share=4 * GIB)
    assert (evicted.starts, len(deleted(evicted))) == ((), not leaving)
    replaced = on_its_own(leaving, revision="r0", share=4 * GIB)
    assert (replaced.starts, len(deleted(replaced))) == ((), not leaving)


def test_one_that_starts_there_goes_unless_this_conductor_may_just_not_have_heard_of_it():
    for age_s, gone in ((ADOPTION_S - 1, []), (ADOPTION_S, [THERE.args.app])):
        young = replace(engine("starting", on=OLD), age_s=age_s)
        lately = {"search/chat": ModelMemory(last_demand_s=970.0)}
        decision = decide(world(model(), engines=(young,), devices=(OLD,), groups=GROUPS, memory=lately))
        assert deleted(decision) == gone


def test_one_that_starts_there_and_was_heard_of_stays():
    heard = replace(engine("loading", on=OLD, state="starting"), phase="starting", age_s=10 * ADOPTION_S)
    lately = {"search/chat": ModelMemory(last_demand_s=970.0)}
    decision = decide(world(model(), engines=(heard,), devices=(OLD,), groups=GROUPS, memory=lately))
    assert deleted(decision) == []


def test_a_lost_one_there_is_not_waited_for():
    lost = engine("lost", on=OLD, silent_s=20.0)
    decision = decide(world(model(min_engines=1), engines=(lost,), devices=(OLD,), groups=GROUPS))
    assert (decision.pods, deleted(decision)) == ({"cpu": 1}, [lost.args.app])
