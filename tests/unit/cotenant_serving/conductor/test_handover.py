"""A cluster that gives way to another one of its pool."""

from tests.builders.conductor import GIB, engine, group, model, pod, world

from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.handover import IDLE_S

PODS = (pod(1), pod(2), pod(3))
GROUPS = (group(most=3),)


def deletes(decision):
    return sorted(delete.app for delete in decision.deletes)


def draining(*models, **situation):
    return decide(world(*models, **{"devices": PODS, "groups": GROUPS, "draining": True, **situation}))


def test_nothing_new_starts_and_no_pod_is_brought():
    for devices in (PODS, ()):
        decision = draining(model(min_engines=2, max_engines=2), devices=devices, demand={"search/chat": 9})
        assert (decision.starts, decision.pods) == ((), {})


def test_a_device_that_was_given_away_is_not_asked_for_again_though_the_group_has_a_min():
    always = (group(least=2, most=3),)
    for devices in (PODS[:1], ()):
        assert draining(model(min_engines=1), groups=always, devices=devices).pods == {}
    assert draining(model(), groups=always, devices=(), draining=False).pods == {"cpu": 2}


def test_engines_that_serve_stay_and_idle_ones_go_though_min_would_keep_them():
    busy, idle = engine(running=1, on=pod(1)), engine(slot=1, idle_s=IDLE_S, on=pod(2))
    fresh = engine(slot=2, idle_s=IDLE_S - 1, on=pod(3))
    assert deletes(draining(model(min_engines=3, max_engines=3), engines=(busy, idle, fresh))) == [idle.args.app]


def test_engines_of_devices_beyond_those_to_keep_go_the_least_busy_device_first():
    three = tuple(
        engine(model=name, share=GIB, running=running, on=where)
        for name, running, where in (("a/a", 3, pod(1)), ("b/b", 1, pod(2)), ("c/c", 1, pod(2)), ("d/d", 5, pod(3)))
    )
    models = tuple(model(name) for name in ("a/a", "b/b", "c/c", "d/d"))
    for keep, expected in ((3, []), (2, ["b.b-r1-0", "c.c-r1-0"]), (1, ["a.a-r1-0", "b.b-r1-0", "c.c-r1-0"])):
        assert deletes(draining(*models, engines=three, keep_devices={"cpu": keep})) == expected


def test_a_device_that_is_being_emptied_counts_as_given_up():
    going, stays = engine("deleting", model="a/a", on=pod(1)), engine(model="b/b", running=1, on=pod(2))
    assert deletes(draining(model("a/a"), model("b/b"), engines=(going, stays), keep_devices={"cpu": 1})) == []


def test_the_number_to_keep_is_absolute_so_a_device_that_has_left_is_not_given_up_twice():
    stays = engine(model="b/b", running=1, on=pod(2))
    left = draining(model("b/b"), engines=(stays,), devices=(pod(2),), keep_devices={"cpu": 1})
    assert deletes(left) == []


def test_devices_to_keep_limit_nothing_while_the_cluster_does_not_drain():
    busy = tuple(engine(model=f"m/{number}", running=1, on=pod(number)) for number in (1, 2, 3))
    models = tuple(model(f"m/{number}") for number in (1, 2, 3))
    decision = draining(*models, engines=busy, keep_devices={"cpu": 0}, draining=False)
    assert deletes(decision) == []


def test_without_models_everything_goes_once():
    busy, idle = engine(running=1, on=pod(1)), engine(slot=1, idle_s=900, on=pod(2))
    decision = draining(engines=(busy, idle), keep_devices={"cpu": 0})
    assert deletes(decision) == sorted([busy.args.app, idle.args.app])


def test_a_drain_that_is_taken_back_starts_engines_again():
    decision = draining(model(min_engines=1), draining=False)
    assert len(decision.starts) == 1
