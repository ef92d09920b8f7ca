"""Worker groups that grow: which pods are asked for, and what happens when they do not come."""

from dataclasses import replace

from tests.builders.conductor import GIB, device, engine, group, model, pod, world

from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.groups import UNAVAILABLE_S
from cotenant_serving.conductor.world import POD_TIMEOUT_S, GroupMemory, ModelMemory
from cotenant_serving.contract import Reason

ASKED = {"search/chat": 1}
RECENTLY = {"a/a": ModelMemory(last_demand_s=970.0)}
"""Half a minute ago somebody asked for it."""
TWO = (group("small", most=2), group("large", most=2))


def status(decision, name="search/chat"):
    return next(one for one in decision.models if one.model == name)


def of_group(decision, name="cpu"):
    return next(one for one in decision.group_statuses if one.group == name)


def crowded(idle, *, most=2, **more):
    """`idle` fills all but 1 GiB of the only pod, and a model that needs 4 GiB is asked for."""
    return world(
        model("a/a", share=7 * GIB),
        model("b/b", share=4 * GIB),
        engines=(idle,),
        devices=(pod(),),
        groups=(group(most=most),),
        demand={"b/b": 1},
        **more,
    )


def waited(seconds, name="cpu", devices=0):
    """The memory of a group that has been asked for a pod for so long, in a world whose time is 1000 s."""
    return {name: GroupMemory(devices=devices, pending_since_s=1000.0 - seconds)}


def test_a_request_for_a_model_without_any_device_asks_for_a_pod():
    decision = decide(world(model(), devices=(), groups=(group(most=1),), demand=ASKED))
    assert decision.pods == {"cpu": 1}
    assert decision.starts == ()
    assert (status(decision).state, status(decision).reason) == ("waking", Reason.POD_PENDING)
    assert "waits for a pod of group cpu" in status(decision).message
    assert (of_group(decision).pending, of_group(decision).reason) == (1, Reason.POD_PENDING)


def test_nobody_is_told_a_time_that_leaves_out_the_pod():
    memory = {"search/chat": ModelMemory(load_s=5.0)}
    for devices, eta_s in (((), None), ((pod(),), 5.0)):
        decision = decide(world(model(), devices=devices, groups=(group(most=1),), demand=ASKED, memory=memory))
        assert model_row(status(decision)).eta_s == eta_s


def test_the_engine_starts_on_the_device_that_the_pod_brings_and_no_further_pod_is_asked_for():
    decision = decide(world(model(), devices=(pod(),), groups=(group(most=2),), demand=ASKED, remembered=waited(20)))
    assert [start.device for start in decision.starts] == [pod()]
    assert decision.pods == {}
    assert decision.groups["cpu"] == GroupMemory(devices=1)


def test_a_model_that_nobody_asks_for_brings_no_pod():
    decision = decide(world(model(), devices=(), groups=(group(most=1),)))
    assert decision.pods == {}
    assert status(decision).reason is Reason.IDLE


def test_a_group_that_may_not_grow_brings_none():
    decision = decide(world(model(), devices=(), demand=ASKED))
    assert decision.pods == {}
    assert (status(decision).state, status(decision).reason) == ("waiting", Reason.NO_ROOM)


def test_two_models_that_fit_on_one_device_wait_for_one_pod():
    both = world(
        model("a/a", share=4 * GIB),
        model("b/b", share=4 * GIB),
        devices=(),
        groups=(group(most=5),),
        demand={"a/a": 1, "b/b": 1},
    )
    assert decide(both).pods == {"cpu": 1}


def test_two_models_that_do_not_fit_on_one_device_wait_for_two_pods_where_two_may_come():
    for most, expected in ((2, 2), (1, 1)):
        both = world(
            model("a/a", share=5 * GIB),
            model("b/b", share=4 * GIB),
            devices=(),
            groups=(group(most=most),),
            demand={"a/a": 1, "b/b": 1},
        )
        decision = decide(both)
        assert decision.pods == {"cpu": expected}
    assert status(decision, "b/b").reason is Reason.NO_ROOM


def test_a_second_model_starts_in_the_pod_that_is_there():
    there = engine(model="a/a", share=4 * GIB, on=pod())
    decision = decide(
        world(
            model("a/a", share=4 * GIB),
            model("b/b", share=4 * GIB),
            engines=(there,),
            devices=(pod(),),
            groups=(group(most=5),),
            demand={"b/b": 1},
        )
    )
    assert [start.device for start in decision.starts] == [pod()]
    assert decision.pods == {}


def test_what_waits_for_the_start_lease_of_a_pod_keeps_its_room_there():
    """Only one starts at a time: the second has its place, the third needs a pod, and asks for it at once."""
    decision = decide(
        world(
            *(model(name, share=3 * GIB) for name in ("a/a", "b/b", "c/c")),
            devices=(pod(),),
            groups=(group(most=2),),
            demand={"a/a": 1, "b/b": 1, "c/c": 1},
        )
    )
    assert [start.spec.model for start in decision.starts] == ["a/a"]
    assert "start lease" in status(decision, "b/b").message
    assert decision.pods == {"cpu": 1}


def test_all_engines_that_a_model_lacks_ask_for_their_pods_at_once():
    decision = decide(world(model(share=8 * GIB, min_engines=3, max_engines=3), devices=(), groups=(group(most=2),)))
    assert decision.pods == {"cpu": 2}


def test_the_first_engine_of_every_model_comes_before_the_second_of_any():
    decision = decide(
        world(
            model("a/a", share=6 * GIB, min_engines=2, max_engines=2),
            model("b/b", share=6 * GIB, min_engines=1),
            devices=(),
            groups=(group(most=2),),
        )
    )
    assert {status(decision, name).reason for name in ("a/a", "b/b")} == {Reason.POD_PENDING}
    assert decision.pods == {"cpu": 2}


def test_a_pod_comes_before_an_idle_engine_has_to_go():
    idle = engine(model="a/a", share=7 * GIB, on=pod(), idle_s=30)
    decision = decide(crowded(idle, memory=RECENTLY))
    assert (decision.pods, decision.deletes) == ({"cpu": 1}, ())
    full = decide(crowded(idle, most=1, memory=RECENTLY))
    assert [delete.app for delete in full.deletes] == [idle.args.app]
    assert full.pods == {}


def test_room_that_an_engine_frees_which_is_idle_past_its_time_comes_before_a_pod():
    idle = engine(model="a/a", share=7 * GIB, on=pod(), idle_s=3000)
    decision = decide(crowded(idle))
    assert [delete.app for delete in decision.deletes] == [idle.args.app]
    assert decision.pods == {}


def test_a_pod_that_does_not_come_makes_its_group_unavailable_and_the_next_candidate_is_tried():
    asked = world(
        model(groups=("small", "large")),
        devices=(),
        groups=TWO,
        demand=ASKED,
        remembered=waited(POD_TIMEOUT_S, "small"),
    )
    decision = decide(asked)
    assert decision.pods == {"large": 1}
    assert of_group(decision, "small").unavailable_s == UNAVAILABLE_S
    later = decide(replace(asked, now_s=1100.0, groups=decision.groups))
    assert later.pods == {"large": 1}
    at_last = decide(replace(asked, now_s=1000.0 + UNAVAILABLE_S, groups=decision.groups))
    assert at_last.pods == {"small": 1}


def test_a_group_that_is_asked_anew_while_it_is_unavailable_says_how_long_its_pod_did_not_come():
    asked = world(model(), devices=(), groups=(group(most=1),), demand=ASKED)
    decision = decide(replace(asked, groups={"cpu": GroupMemory(unavailable_until_s=1200.0)}))
    assert status(decision).reason is Reason.NO_NODE
    assert "did not come in 120 s" in status(decision).message


def test_a_group_counts_as_available_until_its_time_is_over():
    decision = decide(
        world(
            model(groups=("small", "large")),
            devices=(),
            groups=TWO,
            demand=ASKED,
            remembered=waited(POD_TIMEOUT_S - 1, "small"),
        )
    )
    assert decision.pods == {"small": 1}
    assert of_group(decision, "small").pending_s == POD_TIMEOUT_S - 1


def test_without_any_other_place_the_pod_is_waited_for_and_status_says_that_no_node_has_it():
    asked = world(model(), devices=(), groups=(group(most=1),), demand=ASKED, remembered=waited(POD_TIMEOUT_S + 5))
    decision = decide(asked)
    assert decision.pods == {"cpu": 1}
    assert (status(decision).state, status(decision).reason) == ("waiting", Reason.NO_NODE)
    assert "did not come in 125 s" in status(decision).message
    assert of_group(decision).reason is Reason.NO_NODE
    came = decide(replace(asked, devices=(pod(),), groups=decision.groups, now_s=5000.0))
    assert len(came.starts) == 1
    assert came.groups["cpu"] == GroupMemory(devices=1)
    assert of_group(came).reason is None


def test_an_idle_engine_makes_way_when_the_pod_does_not_come():
    idle = engine(model="a/a", share=7 * GIB, on=pod(), idle_s=30)
    decision = decide(crowded(idle, memory=RECENTLY, remembered=waited(POD_TIMEOUT_S, devices=1)))
    assert [delete.app for delete in decision.deletes] == [idle.args.app]
    assert decision.pods == {}


def test_devices_below_the_minimum_are_pending_without_any_demand_and_are_filled_first():
    bare = decide(world(model(), devices=(), groups=(group(least=1, most=3),)))
    assert bare.pods == {"cpu": 1}
    assert status(bare).reason is Reason.IDLE
    asked = decide(world(model(), devices=(), groups=(group(least=1, most=3),), demand=ASKED))
    assert asked.pods == {"cpu": 1}


def test_an_engine_larger_than_a_device_to_come_brings_no_pod():
    decision = decide(world(model(share=9 * GIB), devices=(), groups=(group(most=3),), demand=ASKED))
    assert decision.pods == {}
    assert status(decision).reason is Reason.NO_ROOM


def test_a_new_revision_of_a_model_that_always_runs_gets_a_pod_rather_than_a_gap():
    old = engine(share=8 * GIB, on=pod())
    new = model(revision="r2", share=8 * GIB, min_engines=1)
    decision = decide(world(new, engines=(old,), devices=(pod(),), groups=(group(most=2),)))
    assert (decision.pods, decision.deletes) == ({"cpu": 1}, ())
    full = decide(world(new, engines=(old,), devices=(pod(),), groups=(group(most=1),)))
    assert [delete.app for delete in full.deletes] == [old.args.app]


def test_an_engine_whose_pod_left_before_it_spoke_is_placed_anew():
    stuck = engine("starting", on=pod(7))
    decision = decide(world(model(), engines=(stuck,), devices=(pod(),), groups=(group(most=2),), demand=ASKED))
    assert [(delete.app, delete.why) for delete in decision.deletes] == [
        (stuck.args.app, "its device 10.0.1.7/cpu/0 has left")
    ]
    assert status(decision).state != "failed"


def test_an_engine_whose_pod_left_while_it_served_goes_only_once_it_is_silent():
    for phase, deleted in (("ready", 0), ("loading", 0), ("lost", 1)):
        decision = decide(
            world(
                model(min_engines=1), engines=(engine(phase, on=pod(7)),), devices=(pod(),), groups=(group(most=2),)
            )
        )
        assert len(decision.deletes) == deleted, phase


def test_an_engine_of_a_group_that_is_not_desired_any_more_is_not_taken_for_stranded():
    decision = decide(
        world(model(min_engines=1), engines=(engine("lost", on=pod(7, group="gone")),), devices=(pod(),))
    )
    assert decision.deletes == ()


def test_another_engine_starts_elsewhere_when_a_lost_one_does_not_come_back_soon():
    for silent_s, started in ((4.0, []), (7.0, [pod(2)])):
        gone = engine("lost", on=pod(1), silent_s=silent_s)
        decision = decide(
            world(model(), engines=(gone,), devices=(pod(1), pod(2)), groups=(group(most=2),), demand=ASKED)
        )
        assert [start.device for start in decision.starts] == started
        assert decision.deletes == ()


def test_a_node_whose_engines_are_all_silent_gets_no_new_one_but_a_pod_is_brought():
    gone = engine("lost", on=pod(1), silent_s=7.0)
    decision = decide(world(model(), engines=(gone,), devices=(pod(1),), groups=(group(most=2),), demand=ASKED))
    assert decision.starts == ()
    assert decision.pods == {"cpu": 1}


def test_one_silent_engine_among_others_is_not_replaced_and_does_not_condemn_its_node():
    """Serve brings it back: another one would be one too many. The device goes on taking engines of other models."""
    lost, fine = engine("lost", silent_s=60.0), engine(model="other/model")
    both = (model(min_engines=1), model("other/model"))
    assert decide(world(*both, engines=(lost, fine), demand=ASKED)).starts == ()
    another = decide(world(*both, model("third/model"), engines=(lost, fine), demand={"third/model": 1}))
    assert [start.device for start in another.starts] == [device()]


def test_models_that_are_warm_elsewhere_are_loaded_before_anybody_asks():
    decision = decide(world(model(max_engines=2), devices=(), groups=(group(most=1),), warm={"search/chat": 1}))
    assert decision.pods == {"cpu": 1}
    there = decide(world(model(max_engines=2), devices=(pod(),), groups=(group(most=1),), warm={"search/chat": 1}))
    assert len(there.starts) == 1


def test_a_warm_list_never_brings_more_engines_than_a_model_may_have_and_keeps_what_is_idle():
    idle = engine(on=pod(), idle_s=9999)
    decision = decide(world(model(), engines=(idle,), devices=(pod(),), warm={"search/chat": 3, "not/known": 1}))
    assert (decision.starts, decision.deletes) == ((), ())
    assert [delete.app for delete in decide(world(model(), engines=(idle,), devices=(pod(),))).deletes] == [
        idle.args.app
    ]


def test_a_status_says_what_groups_have():
    decision = decide(
        world(model(min_engines=1), engines=(engine(on=pod(1)),), devices=(pod(1), pod(2)), groups=(group(most=3),))
    )
    shown = of_group(decision)
    assert (shown.devices, shown.empty, shown.max_devices, shown.pending) == (2, 1, 3, 0)
