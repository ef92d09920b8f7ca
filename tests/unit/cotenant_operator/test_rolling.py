"""Rolling a pool: one RayCluster goes, another takes over, whatever happens in between."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.builders.rolling_world import DRAIN_S, GROUP, RollingWorld, status, template

from cotenant_operator.instants import utc
from cotenant_operator.operator_settings import STOPPING_S, OperatorSettings
from cotenant_operator.render.pool_template import PoolTemplate
from cotenant_operator.render.raycluster import pool_template
from cotenant_operator.roll_progress import ROUTE_SETTLE_S, TAKE_S, WARM_S
from cotenant_operator.roll_world import (
    ClusterSeen,
    Create,
    Delete,
    GroupHandover,
    Handover,
    Note,
    Roll,
    Told,
    Workers,
    handover_from_json,
)
from cotenant_operator.rolling import plan_roll, roll_to
from cotenant_operator.spec import GPUPool

NOW_S = 10_000.0
OLD, NEW = "p-old", "p-new"


def old(**fields: Any) -> ClusterSeen:
    workers = Workers(placed={GROUP: 2})
    known = {"template": template("a"), "conductor": status({"m": 1}), "workers": workers, "created_s": 1.0}
    return ClusterSeen(**{"name": OLD, **known, **fields})


def new(**fields: Any) -> ClusterSeen:
    known = {"template": template("b"), "conductor": status({"m": 1}), "created_s": NOW_S - 60}
    return ClusterSeen(**{"name": NEW, **known, **fields})


def roll(
    *seen: ClusterSeen, wanted: str = "b", routed: tuple[str, ...] | None = (OLD,), now_s: float = NOW_S
) -> Roll:
    return roll_to(template(wanted), "p", seen, routed, drain_s=DRAIN_S, now_s=now_s)


def handover(**fields: Any) -> Handover:
    return Handover(**{"target": NEW, "since_s": NOW_S - 100, "warm": {"m": 1}, **fields})


def noted(found: Roll) -> Handover | None:
    (note,) = [step for step in found.steps if isinstance(step, Note)]
    return note.handover


def test_a_pool_without_a_raycluster_gets_one() -> None:
    found = roll(routed=None)
    assert found.steps == (Create(found.target),)
    assert found.routed == (found.target,)


def test_a_pool_that_is_as_wanted_is_left_alone() -> None:
    found = roll(old(), wanted="a")
    assert (found.phase, found.steps, found.routed, found.told) == ("Settled", (), (OLD,), {OLD: Told()})
    assert found.look_again_s is None


def test_new_pods_begin_with_a_second_raycluster_and_say_why() -> None:
    found = roll(old())
    assert found.steps == (Create(found.target),)
    assert found.target not in (OLD, NEW)
    assert "head, group shared" in found.message
    assert (found.told, found.routed) == ({OLD: Told()}, (OLD,))


def test_a_group_that_is_added_needs_no_second_one() -> None:
    wanted = PoolTemplate(head="a", groups={GROUP: "a", "more": "c"})
    found = roll_to(wanted, "p", [old()], (OLD,), drain_s=DRAIN_S, now_s=NOW_S)
    assert (found.target, found.phase) == (OLD, "Settled")


def test_until_the_new_one_answers_the_old_one_serves() -> None:
    found = roll(old(), new(conductor=None, problem="ImagePullBackOff: no such image"))
    assert found.phase == "Starting"
    assert "ImagePullBackOff: no such image" in found.message
    assert (found.steps, found.routed, found.told[OLD]) == ((), (OLD,), Told())


def test_a_configuration_that_follows_none_of_them_was_lost_and_makes_none_useless() -> None:
    found = roll(old(), new(conductor=status({"m": 0})), routed=())
    assert (found.phase, found.steps, found.told[OLD]) == ("Warming", (), Told())
    assert found.routed == (OLD,)
    back = roll(old(), new(conductor=None), wanted="a", routed=())
    assert not [step for step in back.steps if isinstance(step, Delete) and step.name == OLD]


@pytest.mark.parametrize("conductor", [status(generation=0), status(reconciled=False)])
def test_a_conductor_that_knows_nothing_yet_is_told_and_not_followed(conductor: Any) -> None:
    found = roll(old(), new(conductor=conductor))
    assert (found.phase, found.routed) == ("Starting", (OLD,))
    assert found.told[NEW] == Told(warm={"m": 1})


def test_the_new_one_loads_what_is_warm_before_gateways_follow_it() -> None:
    found = roll(old(), new(conductor=status({"m": 0})))
    assert (found.phase, found.routed, found.steps) == ("Warming", (OLD,), ())
    assert found.told == {NEW: Told(warm={"m": 1}), OLD: Told()}
    assert "0 of 1 warm models" in found.message


def test_models_that_are_not_wanted_any_more_are_not_waited_for() -> None:
    assert NEW in roll(old(conductor=status({"gone": 2})), new(conductor=status({"m": 0}))).routed


def test_a_model_that_fails_in_the_new_one_holds_the_roll() -> None:
    found = roll(old(), new(conductor=status(failed=["m"])))
    assert (found.phase, found.routed, found.steps) == ("Stuck", (OLD,), ())
    assert "m does not load there: LoadFailed: no such file" in found.message


def test_a_model_without_room_holds_the_roll_for_a_while_only() -> None:
    waits = new(conductor=status(waiting=["m"]))
    assert NEW not in roll(old(), waits).routed
    assert NEW in roll(old(), replace(waits, created_s=NOW_S - WARM_S)).routed


def test_gateways_follow_both_before_the_old_one_drains() -> None:
    first = roll(old(), new())
    assert (first.routed, first.steps, first.told[OLD]) == ((OLD, NEW), (), Told())
    second = roll(old(), new(), routed=(OLD, NEW))
    assert noted(second) == Handover(target=NEW, since_s=NOW_S, warm={"m": 1}, drain_s=NOW_S + ROUTE_SETTLE_S)
    assert second.told[OLD] == Told()
    third = roll(old(handover=noted(second)), new(), routed=(OLD, NEW), now_s=NOW_S + ROUTE_SETTLE_S)
    assert (third.phase, third.steps) == ("Draining", ())
    assert third.told[OLD] == Told(draining=True, without_models=True)
    assert (third.leaving, third.routed) == ((OLD,), (OLD, NEW))


def test_the_old_one_goes_when_its_last_request_has_ended() -> None:
    drains = handover(drain_s=NOW_S - 5)
    busy = old(handover=drains, conductor=status({"m": 1}, draining=True, in_flight=1))
    assert roll(busy, new(), routed=(OLD, NEW)).steps == ()
    idle = old(handover=drains, conductor=status({"m": 0}, draining=True), workers=Workers())
    found = roll(idle, new(), routed=(OLD, NEW))
    assert found.steps == (Delete(OLD, f"the last request of {OLD} has ended"),)
    assert (found.routed, list(found.told)) == ((NEW,), [NEW])


def test_what_is_said_while_the_old_one_drains_changes_with_no_second_and_no_request() -> None:
    """Each other text is a write to the API server."""
    drains = handover(drain_s=NOW_S - 5)
    said = {
        roll(
            old(handover=drains, conductor=status({"m": 1}, draining=True, in_flight=requests)),
            new(),
            routed=(OLD, NEW),
            now_s=NOW_S + requests,
        ).message
        for requests in range(3)
    }
    assert len(said) == 1
    assert f"until {utc(NOW_S - 5 + DRAIN_S)} at the latest" in said.pop()


def test_the_old_one_goes_after_its_worker_pods() -> None:
    """They are taken away by an autoscaler that is still there."""
    drained = old(handover=handover(drain_s=NOW_S - 5), conductor=status({"m": 0}, draining=True))
    assert roll(drained, new(), routed=(OLD, NEW)).steps == ()


def test_the_old_one_goes_when_the_stated_maximum_has_passed() -> None:
    drains = handover(drain_s=NOW_S - DRAIN_S)
    (step,) = roll(old(handover=drains), new(), routed=(OLD, NEW)).steps
    assert step == Delete(OLD, f"{OLD} had 15m to finish its requests")


def test_an_empty_conductor_that_was_not_told_to_drain_yet_is_not_drained() -> None:
    drains = handover(drain_s=NOW_S - 5)
    empty = old(handover=drains, conductor=status({"m": 0}), workers=Workers())
    assert roll(empty, new(), routed=(OLD, NEW)).steps == ()


def test_an_old_one_that_is_silent_goes_when_it_has_no_worker_pod() -> None:
    drains = handover(drain_s=NOW_S - 5)
    assert roll(old(handover=drains, conductor=None), new(), routed=(OLD, NEW)).steps == ()
    (step,) = roll(old(handover=drains, conductor=None, workers=Workers()), new(), routed=(OLD, NEW)).steps
    assert isinstance(step, Delete)


def test_a_silent_old_one_is_waited_for_because_nobody_knows_what_is_warm() -> None:
    found = roll(old(conductor=None), new())
    assert (found.phase, found.routed) == ("Warming", (OLD,))
    assert NEW in roll(old(conductor=None), new(created_s=NOW_S - WARM_S)).routed
    assert NEW in roll(old(conductor=None, workers=Workers()), new()).routed


@pytest.mark.parametrize("age_s", [60.0, WARM_S])
def test_what_a_silent_old_one_has_warm_is_what_the_new_one_was_told(age_s: float) -> None:
    loads = new(created_s=NOW_S - age_s, conductor=status(loading=["m"]), told_warm={"m": 1})
    found = roll(old(conductor=None), loads)
    assert (found.phase, found.routed, found.steps) == ("Warming", (OLD,), ())
    assert found.told[NEW] == Told(warm={"m": 1})


def test_an_old_one_that_is_back_does_not_drain_while_only_it_serves_a_model() -> None:
    """That was decided while it was silent."""
    drains = handover(warm={}, drain_s=NOW_S - 5)
    found = roll(old(handover=drains), new(conductor=status({"m": 0})), routed=(OLD, NEW))
    assert noted(found) == handover(warm={"m": 1}, drain_s=0.0)
    assert found.told == {OLD: Told(), NEW: Told(warm={"m": 1})}
    again = roll(old(handover=noted(found)), new(conductor=status(loading=["m"])), routed=(OLD, NEW))
    assert (again.phase, again.steps, again.told) == ("HandingOver", (), found.told)


def test_what_an_old_one_said_before_it_was_told_to_go_undoes_no_drain() -> None:
    """It is asked every two seconds, and the new one lets go at once of what nobody asks for."""
    drains = old(handover=handover(drain_s=NOW_S - 5), told_to_go=True)
    found = roll(drains, new(conductor=status({"m": 0})), routed=(OLD, NEW))
    assert (found.phase, found.steps) == ("Draining", ())
    assert found.told == {OLD: Told(draining=True, without_models=True), NEW: Told()}


def test_models_that_wake_all_the_time_do_not_hold_up_a_drain_for_ever() -> None:
    began = handover(since_s=NOW_S - WARM_S, drain_s=NOW_S - 5)
    wakes = {"handover": began, "conductor": status({"m": 1, "n": 1})}
    found = roll(old(**wakes), new(conductor=status({"m": 1}, loading=["n"])), routed=(OLD, NEW))
    assert found.told[OLD] == Told(draining=True, without_models=True)


def test_a_new_one_with_an_engine_less_stops_no_drain() -> None:
    drains = handover(drain_s=NOW_S - 5)
    found = roll(old(handover=drains, conductor=status({"m": 2})), new(), routed=(OLD, NEW))
    assert found.told[OLD] == Told(draining=True, without_models=True)


def test_a_model_that_got_warm_since_a_hand_over_began_is_loaded_too() -> None:
    serves = old(handover=handover(), conductor=status({"m": 1, "n": 1}))
    found = roll(serves, new(conductor=status({"m": 1, "n": 0})))
    assert (found.phase, found.steps) == ("HandingOver", ())
    assert found.told[NEW] == Told(warm={"m": 1, "n": 1})


def test_the_new_one_keeps_all_warm_until_the_old_one_drains() -> None:
    settles = roll(old(handover=handover(drain_s=NOW_S + 5)), new(), routed=(OLD, NEW))
    assert settles.told == {OLD: Told(), NEW: Told(warm={"m": 1})}


@pytest.mark.parametrize("routed", [None, (OLD,)])
def test_no_old_one_drains_while_gateways_do_not_follow_the_new_one(routed: tuple[str, ...] | None) -> None:
    """The configuration that they had was lost, and made anew."""
    found = roll(old(handover=handover(drain_s=NOW_S - 5)), new(), routed=routed)
    assert noted(found) == handover(drain_s=0.0)
    assert found.told[OLD] == Told()
    assert NEW in roll(old(handover=noted(found)), new(), routed=routed).routed


def test_an_old_one_that_stays_silent_goes_in_the_end() -> None:
    silent = old(handover=handover(warm={}, drain_s=NOW_S - DRAIN_S), conductor=None)
    (step,) = roll(silent, new(conductor=status({"m": 0})), routed=(OLD, NEW)).steps
    assert step == Delete(OLD, f"{OLD} had 15m to finish its requests")


def test_when_the_new_one_falls_silent_the_old_one_serves_on() -> None:
    drains = handover(drain_s=NOW_S - 5)
    found = roll(old(handover=drains), new(conductor=None), routed=(OLD, NEW))
    assert noted(found) == handover(drain_s=0.0)
    assert (found.told[OLD], found.routed) == (Told(), (OLD, NEW))


def test_a_template_that_is_edited_back_makes_the_old_one_the_target() -> None:
    found = roll(old(), new(), wanted="a")
    assert found.target == OLD
    assert found.steps == (Delete(NEW, f"no gateway follows {NEW}"),)
    assert found.phase == "TakingBack"


def test_a_new_one_that_serves_already_goes_as_an_old_one_does() -> None:
    back = old(handover=handover(drain_s=NOW_S - 5), conductor=status({"m": 0}))
    found = roll(back, new(), wanted="a", routed=(OLD, NEW))
    assert found.steps == (Note(OLD, None),)
    assert found.told == {OLD: Told(warm={"m": 1}), NEW: Told()}
    assert set(found.routed) == {OLD, NEW}


def test_of_two_the_one_that_serves_less_goes_before_a_third_is_made() -> None:
    found = roll(old(), new(conductor=status({"m": 0})), wanted="c")
    assert found.steps == (Delete(NEW, f"no gateway follows {NEW}"),)
    assert found.target not in (OLD, NEW)
    assert roll(old(), wanted="c").steps == (Create(found.target),)


def test_a_third_template_lets_a_hand_over_that_has_begun_go_on() -> None:
    drains = handover(drain_s=NOW_S - 5)
    found = roll(old(handover=drains, conductor=status({"m": 2})), new(), wanted="c", routed=(OLD, NEW))
    assert found.told[OLD] == Told(draining=True, without_models=True)
    assert f"then {found.target} is made" in found.message


def test_before_a_third_is_made_the_one_that_is_silent_goes() -> None:
    """What it was to take over stays where it is, although the hand-over had begun."""
    found = roll(old(handover=handover()), new(conductor=None), wanted="c", routed=(OLD, NEW))
    assert found.told[OLD] == Told()
    assert Note(OLD, None) in found.steps
    assert any(isinstance(step, Note) and step.name == NEW and step.handover for step in found.steps)


def test_a_raycluster_that_is_being_deleted_is_not_counted_and_keeps_its_name() -> None:
    first = roll(routed=None, wanted="a").target
    found = roll(old(name=first, deleting=True), wanted="a")
    assert isinstance(found.steps[0], Create)
    assert found.target != first


FULL = {"workers": Workers(waiting={GROUP: 1}, waiting_message="2 Insufficient nvidia.com/gpu")}
LACKS = {**FULL, "conductor": status({"m": 0}, pending=1)}


def test_without_a_free_device_gateways_follow_both_first() -> None:
    found = roll(old(), new(**LACKS))
    assert (found.phase, found.routed, found.steps, found.told[OLD]) == ("HandingOver", (OLD, NEW), (), Told())
    assert "2 Insufficient nvidia.com/gpu" in found.message


def test_then_one_device_is_given() -> None:
    found = roll(old(), new(**LACKS), routed=(OLD, NEW))
    after = noted(found)
    assert after is not None
    assert after.groups == {GROUP: GroupHandover(keep=1, since_s=NOW_S, placed=0)}
    assert after.warm == {"m": 1}
    assert (found.told[OLD], found.leaving) == (Told(draining=True, keep_devices={GROUP: 1}), (OLD,))


def test_no_device_is_given_for_a_model_that_fails_anyway() -> None:
    fails = {**FULL, "conductor": status(failed=["m"], pending=1)}
    found = roll(old(), new(**fails), routed=(OLD, NEW))
    assert (found.phase, found.steps) == ("Stuck", ())


def given_one(**fields: Any) -> Handover:
    group = {"keep": 1, "since_s": NOW_S - 50, "placed": 0, **fields}
    return handover(groups={GROUP: GroupHandover(**group)})


def test_the_next_device_waits_until_the_first_is_taken() -> None:
    found = roll(old(handover=given_one()), new(**LACKS), routed=(OLD, NEW))
    assert found.steps == ()
    assert found.told[OLD] == Told(draining=True, keep_devices={GROUP: 1})


def taken(**said: Any) -> dict[str, Any]:
    """A target that has the first device, and lacks another; its conductor says `said`."""
    workers = replace(FULL["workers"], placed={GROUP: 1})
    return {"workers": workers, "conductor": status(pending=1, **said)}


ONE_LEFT = {"handover": given_one(), "workers": Workers(placed={GROUP: 1})}


def test_the_next_device_is_given_when_the_first_is_taken_and_its_models_are_loaded() -> None:
    loaded = taken(ready={"m": 1}, waiting=["n"], devices=1)
    began = handover(groups=given_one().groups, warm={"m": 1, "n": 1})
    after = noted(roll(old(**{**ONE_LEFT, "handover": began}), new(**loaded), routed=(OLD, NEW)))
    assert after is not None
    assert after.groups[GROUP] == GroupHandover(keep=0, since_s=NOW_S, placed=1)


@pytest.mark.parametrize(
    "said",
    [{"waiting": ["m"]}, {"waiting": ["m"], "devices": 1, "empty": 1}, {"loading": ["m"], "devices": 1}],
    ids=["its pod has not joined", "nothing is on it yet", "an engine loads on it"],
)
def test_the_next_device_waits_until_the_first_serves(said: dict[str, Any]) -> None:
    """Else a model whose last engine was on it would have none."""
    found = roll(old(**ONE_LEFT), new(**taken(**said)), routed=(OLD, NEW))
    after = noted(found)
    assert after is not None
    assert after.groups[GROUP] == replace_group(keep=1, freed_s=NOW_S)
    assert found.told[OLD] == Told(draining=True, keep_devices={GROUP: 1})
    assert found.look_again_s is not None
    assert found.look_again_s > 0


def replace_group(**fields: Any) -> GroupHandover:
    return msgspec.structs.replace(given_one().groups[GROUP], **fields)


def test_a_model_that_loads_for_ever_does_not_hold_the_next_device_for_ever() -> None:
    long_ago = {**ONE_LEFT, "handover": given_one(freed_s=NOW_S - WARM_S)}
    after = noted(roll(old(**long_ago), new(**taken(loading=["m"], devices=1)), routed=(OLD, NEW)))
    assert after is not None
    assert after.groups[GROUP].keep == 0


def test_an_engine_that_is_listed_without_any_pod_does_not_hold_a_roll() -> None:
    """Ray lists those of a node that was lost for long."""
    lost = old(
        handover=handover(drain_s=NOW_S - 5), conductor=status({}, draining=True, engines=1), workers=Workers()
    )
    assert roll(lost, new(), routed=(OLD, NEW)).steps == (Delete(OLD, f"{OLD} has no worker pod left"),)
    ends = replace(lost, workers=Workers(ending={GROUP: 1}))
    assert roll(ends, new(), routed=(OLD, NEW)).steps == ()


def test_a_device_is_not_given_as_long_as_its_pod_ends() -> None:
    ends = old(handover=given_one(), workers=Workers(placed={GROUP: 1}, ending={GROUP: 1}))
    assert roll(ends, new(**LACKS), routed=(OLD, NEW)).steps == ()


def test_a_device_that_nobody_takes_goes_back_and_the_others_stay() -> None:
    kept = Workers(placed={GROUP: 1})
    freed = noted(roll(old(handover=given_one(), workers=kept), new(**LACKS), routed=(OLD, NEW)))
    assert freed is not None
    assert freed.groups[GROUP].freed_s == NOW_S
    later = roll(old(handover=freed, workers=kept), new(**LACKS), routed=(OLD, NEW), now_s=NOW_S + TAKE_S)
    assert later.phase == "Stuck"
    assert later.told[OLD] == Told()
    refused = noted(later)
    assert refused is not None
    assert refused.groups[GROUP].refused
    again = roll(old(handover=refused, workers=kept), new(**LACKS), routed=(OLD, NEW), now_s=NOW_S + 10 * TAKE_S)
    assert (again.phase, again.steps, again.told[OLD]) == ("Stuck", (), Told())


def test_models_of_a_device_that_was_given_stay_on_the_warm_list() -> None:
    gone = old(handover=given_one(), conductor=status({"m": 0}))
    assert roll(gone, new(**LACKS), routed=(OLD, NEW)).told[NEW] == Told(warm={"m": 1})


def test_a_hand_over_survives_its_annotation() -> None:
    assert handover_from_json(given_one(freed_s=3.0, refused=True).to_json()) == given_one(freed_s=3.0, refused=True)
    assert handover_from_json("nonsense") is None


# ---- whole rolls, in a simulated cluster

MODELS = ("m1", "m2", "m3", "m4")


def test_with_free_devices_no_model_is_ever_without_an_engine() -> None:
    world = RollingWorld.serving(4, MODELS)
    world.wanted = "b"
    for _ in range(100):
        world.look()
        world.live()
        world.now_s += 5
        assert all(world.served(model) for model in MODELS)
    world.settle()
    assert [cluster.template for cluster in world.clusters] == [template("b")]


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_with_every_device_taken_the_roll_ends_too(devices: int) -> None:
    models = MODELS[: 2 * devices]
    world = RollingWorld.serving(devices, models)
    assert sum(len(cluster.devices) for cluster in world.clusters) == -(-len(models) // 2)
    world.wanted = "b"
    world.settle()
    assert [cluster.template for cluster in world.clusters] == [template("b")]
    assert all(world.served(model) for model in models)


def test_a_new_one_that_never_comes_up_harms_nothing_and_can_be_taken_back() -> None:
    world = RollingWorld.serving(4, MODELS)
    world.wanted, world.broken = "b", frozenset({"b"})
    for _ in range(50):
        world.look()
        world.live()
        world.now_s += 60
        assert all(world.served(model) for model in MODELS)
    assert world.roll is not None
    assert "ImagePullBackOff" in world.roll.message
    world.wanted = "a"
    world.settle()
    assert [cluster.template for cluster in world.clusters] == [template("a")]


def test_a_broken_new_one_is_replaced_by_a_third() -> None:
    world = RollingWorld.serving(4, MODELS)
    world.wanted, world.broken = "b", frozenset({"b"})
    world.look()
    world.live()
    world.wanted = "c"
    world.settle()
    assert [cluster.template for cluster in world.clusters] == [template("c")]
    assert all(world.served(model) for model in MODELS)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.sampled_from("abc")),
        st.tuples(st.just("look"), st.one_of(st.none(), st.integers(0, 5))),
        st.tuples(st.just("live"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.floats(0.1, 400.0)),
        st.tuples(st.just("silence"), st.integers(0, 1)),
        st.tuples(st.just("busy"), st.booleans()),
    ),
    max_size=60,
)


def happen(world: RollingWorld, event: str, value: Any) -> None:
    if event == "want":
        world.wanted = value
    elif event == "look":
        world.look(value)
    elif event == "live":
        for _ in range(value):
            world.live()
    elif event == "wait":
        world.wait(value)
    elif event == "busy":
        world.busy = value
    else:
        world.silence(value)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(1, 6))
def test_whatever_happens_there_are_never_more_than_two_and_it_ends(events: list[Any], devices: int) -> None:
    """Operators that are killed between any two writes, edits at any time, conductors that fall silent."""
    models = MODELS[: 2 * devices]
    world = RollingWorld.serving(devices, models)
    for event, value in events:
        happen(world, event, value)
        assert len(world.clusters) <= 2
        assert world.clusters, "a pool without any RayCluster"
    world.settle()
    assert [cluster.template for cluster in world.clusters] == [template(world.wanted)]
    assert world.clusters[0].handover is None
    before = len(world.steps)
    world.settle()
    assert len(world.steps) == before


LOOK, LIVE = ("look", None), ("live", 1)
SILENT_WHEN_THE_NEW_ONE_IS_TEN_MINUTES_OLD = [
    *[("want", "b"), LOOK, LIVE, LOOK, ("wait", WARM_S), ("silence", 0), LOOK, LOOK],
    *[LIVE, ("wait", ROUTE_SETTLE_S), LOOK, LIVE],
]
SILENT_WHEN_THE_NEW_ONE_IS_FIRST_HEARD = [
    *[("want", "b"), LOOK, ("wait", WARM_S), LIVE, ("silence", 0), LOOK, LOOK, LOOK],
    *[LIVE, ("wait", ROUTE_SETTLE_S), LOOK, LIVE],
]


@settings(max_examples=300, deadline=None)
@given(EVENTS)
@example(SILENT_WHEN_THE_NEW_ONE_IS_TEN_MINUTES_OLD)
@example(SILENT_WHEN_THE_NEW_ONE_IS_FIRST_HEARD)
def test_with_free_devices_a_warm_model_always_has_an_engine_that_gateways_follow(events: list[Any]) -> None:
    """No conductor is silent for longer than Kubernetes lets a container that has ended wait. (One that never speaks
    again is given up when the time for its requests is over: `test_an_old_one_that_stays_silent_goes_in_the_end`.)"""
    world = RollingWorld.serving(2 * len(MODELS), MODELS)
    world.back_off_s = 300.0
    for event, value in [*events, *[("look", None), ("live", 1), ("wait", 20.0)] * 30]:
        happen(world, event, value)
        assert all(world.served(model) for model in MODELS), (event, value, world.roll)


@pytest.mark.parametrize(
    ("installed", "drain_s"),
    [({}, 900), ({"requestTimeout": "1h"}, 3600 + STOPPING_S), ({"timeouts": {"rollDrain": "1s"}}, 600 + STOPPING_S)],
)
def test_no_roll_is_over_before_the_longest_request_is(installed: dict[str, Any], drain_s: float) -> None:
    pool = GPUPool.model_validate(
        {"metadata": {"name": "p"}, "spec": {"workers": [{"name": "cpu", "device": "cpu", "memory": "8Gi"}]}}
    )
    wanted = OperatorSettings.model_validate(installed, by_alias=True, by_name=False)
    began = handover(drain_s=NOW_S - drain_s + 1)
    busy = old(handover=began, conductor=status({"m": 1}, draining=True, engines=1))
    target = replace(new(), template=pool_template(pool, wanted))

    def goes(now_s: float) -> bool:
        steps = plan_roll(pool, wanted, [busy, target], (OLD, NEW), now_s).steps
        return any(isinstance(step, Delete) and step.name == OLD for step in steps)

    assert not goes(NOW_S)
    assert goes(NOW_S + 1)
