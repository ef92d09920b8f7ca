"""Which model runs where, now: situations in, decisions out."""

from dataclasses import replace

from tests.builders.conductor import GIB, device, engine, model, refused, spec, world

from cotenant_serving.conductor.decide import BACKOFF_MOST_S, decide, wanted
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.world import Failure, ModelMemory, ModelView
from cotenant_serving.contract import Reason
from cotenant_serving.contract_gateway import ModelDemand

BROKEN = Failure(reason=Reason.CORRUPT_WEIGHTS, message="model.safetensors ends too early")


def starts(decision):
    return [start.app for start in decision.starts]


def deletes(decision):
    return [delete.app for delete in decision.deletes]


def status(decision, name="search/chat"):
    return next(model for model in decision.models if model.model == name)


def test_a_cold_model_without_demand_stays_cold():
    decision = decide(world(model()))
    assert (decision.starts, decision.deletes) == ((), ())
    assert (status(decision).state, status(decision).reason) == ("cold", Reason.IDLE)


def test_a_request_wakes_a_cold_model_once():
    first = decide(world(model(), demand={"search/chat": 200}))
    assert starts(first) == ["search.chat-r1-0"]
    again = decide(world(model(), demand={"search/chat": 200}, engines=(engine("starting"),)))
    assert again.starts == ()
    assert status(again).state == "waking"


def test_min_engines_start_without_demand():
    assert starts(decide(world(model(min_engines=1)))) == ["search.chat-r1-0"]


def test_one_engine_at_a_time_starts_on_a_device():
    both = decide(world(model("a/a", min_engines=1), model("b/b", min_engines=1)))
    assert len(both.starts) == 1
    assert "start lease" in status(both, "b/b").message


def test_an_engine_that_fetches_its_model_keeps_no_other_from_its_device_and_one_that_loads_does():
    for loads in (False, True):
        there = engine("loading", model="a/a", holds_lease=loads, state="loading")
        decision = decide(world(model("a/a", min_engines=1), model("b/b", min_engines=1), engines=(there,)))
        assert starts(decision) == ([] if loads else ["b.b-r1-0"])


def test_two_devices_start_two_engines_at_once():
    both = decide(
        world(
            model("a/a", min_engines=1, share=5 * GIB),
            model("b/b", min_engines=1, share=5 * GIB),
            devices=(device(0), device(1)),
        )
    )
    assert sorted(start.device.id for start in both.starts) == ["10.0.0.1/cpu/0", "10.0.0.1/cpu/1"]


def test_more_engines_follow_demand_up_to_max():
    busy = engine(running=4)
    for queued, max_engines, expected in ((1, 3, 1), (9, 3, 1), (9, 1, 0)):
        decision = decide(world(model(max_engines=max_engines), engines=(busy,), demand={"search/chat": 4 + queued}))
        assert len(decision.starts) == expected


def test_wanted_is_demand_over_slots_between_min_and_max():
    view = ModelView(
        desired=model(min_engines=1, max_engines=3, slots=4),
        engines=(),
        demand=ModelDemand(running=4, queued=5),
        memory=ModelMemory(),
        now_s=0.0,
    )
    assert wanted(view) == 3
    assert wanted(replace(view, demand=ModelDemand())) == 1
    assert wanted(replace(view, demand=ModelDemand(queued=100))) == 3


def test_an_idle_engine_stays_until_idle_after_and_then_goes():
    decision = decide(world(model(idle_after_s=60), engines=(engine(idle_s=59),)))
    assert decision.deletes == ()
    decision = decide(world(model(idle_after_s=60), engines=(engine(idle_s=61),)))
    assert deletes(decision) == ["search.chat-r1-0"]


def test_an_engine_with_requests_in_flight_never_goes_for_idleness():
    assert decide(world(model(idle_after_s=0), engines=(engine(running=1, idle_s=0),))).deletes == ()


def test_min_engines_are_not_taken_for_idleness():
    assert decide(world(model(min_engines=1), engines=(engine(idle_s=9999),))).deletes == ()


def test_without_a_desired_state_nothing_is_deleted_or_started():
    decision = decide(world(adopted=True, engines=(engine(idle_s=9999),)))
    assert (decision.starts, decision.deletes) == ((), ())


def test_engines_of_a_model_that_is_not_desired_any_more_go():
    decision = decide(world(model("other/model"), engines=(engine(),)))
    assert deletes(decision) == ["search.chat-r1-0"]


def test_a_new_revision_starts_beside_the_old_one_which_goes_when_it_is_ready():
    old = engine(revision="r1", running=1)
    demand = {"search/chat": 1}
    first = decide(world(model(revision="r2"), engines=(old,), demand=demand))
    assert starts(first) == ["search.chat-r2-0"]
    assert first.deletes == ()
    loading = engine("loading", revision="r2")
    assert decide(world(model(revision="r2"), engines=(old, loading), demand=demand)).deletes == ()
    ready = engine("ready", revision="r2")
    last = decide(world(model(revision="r2"), engines=(old, ready), demand=demand))
    assert deletes(last) == ["search.chat-r1-0"]


def test_a_new_revision_that_fails_leaves_the_old_one_serving():
    old, new = engine(revision="r1"), engine("failed", revision="r2", failure=BROKEN)
    demand = {"search/chat": 1}
    first = decide(world(model(revision="r2"), engines=(old, new), demand=demand))
    assert deletes(first) == ["search.chat-r2-0"]
    assert status(first).state == "ready"
    assert "CorruptWeights" in status(first).message
    after = decide(world(model(revision="r2"), engines=(old,), demand=demand, memory=dict(first.memory)))
    assert (after.starts, after.deletes) == ((), ())


def test_a_refused_new_revision_leaves_the_old_one_serving():
    decision = decide(world(refused(), engines=(engine(),), demand={"search/chat": 1}))
    assert decision.deletes == ()
    assert status(decision).state == "ready"
    assert "DoesNotFit" in status(decision).message


def test_a_failed_model_is_tried_again_after_a_growing_pause():
    memory, now_s, pauses = {}, 0.0, []
    for _ in range(8):
        failed = engine("failed", failure=BROKEN)
        decision = decide(world(model(min_engines=1), engines=(failed,), memory=memory, now_s=now_s))
        memory = dict(decision.memory)
        retry_at_s = memory["search/chat"].retry_at_s
        pauses.append(retry_at_s - now_s)
        assert decide(world(model(min_engines=1), memory=memory, now_s=retry_at_s - 0.01)).starts == ()
        assert starts(decide(world(model(min_engines=1), memory=memory, now_s=retry_at_s))) == ["search.chat-r1-0"]
        now_s = retry_at_s + 1
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == BACKOFF_MOST_S


def test_a_failure_is_forgotten_once_the_model_is_ready_or_its_revision_changes():
    failed = ModelMemory(failed_revision="r1", failure=BROKEN, failures=5, retry_at_s=9e9)
    ready = decide(world(model(), engines=(engine(),), memory={"search/chat": failed}))
    assert ready.memory["search/chat"].failure is None
    edited = decide(world(model(revision="r2", min_engines=1), memory={"search/chat": failed}))
    assert starts(edited) == ["search.chat-r2-0"]


def test_a_failed_model_shows_its_cause_and_when_it_is_tried_again():
    decision = decide(world(model(), engines=(engine("failed", failure=BROKEN),), demand={"search/chat": 1}))
    shown = status(decision)
    assert (shown.state, shown.reason, shown.message) == ("failed", Reason.CORRUPT_WEIGHTS, BROKEN.message)
    assert shown.retry_in_s == 1.0


def test_room_is_counted_until_the_process_is_gone():
    going = engine("deleting", model="b/b", share=7 * GIB)
    decision = decide(world(model(), model("b/b"), engines=(going,), demand={"search/chat": 1}))
    assert decision.starts == ()
    assert "have freed their share" in status(decision).message


def test_the_idle_engine_that_is_cheapest_to_bring_back_makes_room():
    slow = engine(model="a/slow", share=4 * GIB, load_s=60.0)
    quick = engine(model="b/quick", share=4 * GIB, load_s=2.0)
    memory = {"a/slow": ModelMemory(load_s=60.0), "b/quick": ModelMemory(load_s=2.0)}
    decision = decide(
        world(
            model(),
            model("a/slow"),
            model("b/quick"),
            engines=(slow, quick),
            demand={"search/chat": 1},
            memory=memory,
        )
    )
    assert deletes(decision) == ["b.quick-r1-0"]


def test_an_engine_in_use_or_kept_by_min_never_makes_room():
    held = model("b/b", share=7 * GIB)
    cases = (
        (held, engine(model="b/b", share=7 * GIB, running=1), {"search/chat": 1}),
        (held, engine(model="b/b", share=7 * GIB), {"search/chat": 1, "b/b": 1}),
        (replace_min(held), engine(model="b/b", share=7 * GIB), {"search/chat": 1}),
    )
    for other, holder, demand in cases:
        decision = decide(world(model(), other, engines=(holder,), demand=demand))
        assert decision.deletes == ()
        assert (status(decision).state, status(decision).reason) == ("waiting", Reason.NO_ROOM)
        assert "needs 2.00 GiB, 1.00 GiB of 8.00 GiB free" in status(decision).message


def replace_min(desired):
    return model(desired.name, share=7 * GIB, min_engines=1)


def test_a_revision_that_never_fits_beside_the_old_one_replaces_it_in_place_and_falls_back():
    demand = {"search/chat": 1}
    old = engine(revision="r1", share=6 * GIB)
    new = model(revision="r2", share=6 * GIB)
    first = decide(world(new, engines=(old,), demand=demand))
    assert deletes(first) == ["search.chat-r1-0"]
    memory = dict(first.memory)
    second = decide(world(new, demand=demand, memory=memory))
    assert starts(second) == ["search.chat-r2-0"]
    broken = engine("failed", revision="r2", share=6 * GIB, failure=BROKEN)
    third = decide(world(new, engines=(broken,), demand=demand, memory=dict(second.memory)))
    fourth = decide(world(new, demand=demand, memory=dict(third.memory)))
    assert starts(fourth) == ["search.chat-r1-0"]
    again = engine(revision="r1", share=6 * GIB)
    later = decide(world(new, engines=(again,), demand=demand, memory=dict(fourth.memory), now_s=5000.0))
    assert (later.starts, later.deletes) == ((), ())


def test_no_device_of_the_group_says_so():
    decision = decide(world(model(), devices=(), demand={"search/chat": 1}))
    assert status(decision).state == "waiting"
    assert "no device of worker group cpu" in status(decision).message


def test_slots_of_apps_that_still_end_are_not_used_again():
    decision = decide(world(model(), engines=(engine("deleting"),), demand={"search/chat": 1}))
    assert starts(decision) == ["search.chat-r1-1"]


def test_a_settled_world_needs_no_action():
    settled = world(model(min_engines=1), engines=(engine(),), demand={"search/chat": 1})
    decision = decide(settled)
    assert (decision.starts, decision.deletes) == ((), ())
    assert spec().revision == status(decision).revision


def test_demand_that_is_over_keeps_an_engine_but_wakes_none_and_evicts_none():
    """Two models that fit one at a time, each asked once, then nobody: whoever is there stays."""
    recently = {name: ModelMemory(last_demand_s=990.0, load_s=1.0) for name in ("a/one", "b/two")}
    models = (model("a/one", share=6 * GIB), model("b/two", share=6 * GIB))
    there = engine(model="b/two", share=6 * GIB, idle_s=10.0)
    decision = decide(world(*models, engines=(there,), memory=recently))
    assert (decision.starts, decision.deletes) == ((), ())
    gone = decide(world(*models, memory=recently))
    assert gone.starts == ()


def test_a_model_that_failed_is_tried_again_while_its_demand_is_recent_but_evicts_nobody():
    failed = ModelMemory(last_demand_s=990.0, failed_revision="r1", failure=BROKEN, failures=1, retry_at_s=999.0)
    assert starts(decide(world(model(), memory={"search/chat": failed}))) == ["search.chat-r1-0"]
    idle = engine(model="b/two", share=7 * GIB)
    crowded = decide(world(model(), model("b/two", share=7 * GIB), engines=(idle,), memory={"search/chat": failed}))
    assert (crowded.starts, crowded.deletes) == ((), ())


def test_a_new_revision_of_a_warm_model_starts_without_waiting_for_a_request():
    recently = {"search/chat": ModelMemory(last_demand_s=990.0)}
    assert starts(decide(world(model(revision="r2"), engines=(engine(),), memory=recently))) == ["search.chat-r2-0"]


def test_a_restarted_conductor_keeps_the_old_revision_while_the_new_one_has_not_loaded():
    """After a restart nobody remembers the last request; the old engine goes only for idleness."""
    old = engine(revision="r1", idle_s=0.0)
    for there in ((old,), (old, engine("loading", revision="r2"))):
        assert decide(world(model(revision="r2"), engines=there)).deletes == ()
    idle = engine(revision="r1", idle_s=601.0)
    assert deletes(decide(world(model(revision="r2"), engines=(idle,)))) == ["search.chat-r1-0"]


def test_engines_beyond_what_light_traffic_wants_go_after_idle_after():
    """Each of the four is used now and then, so none is ever idle for long."""
    four = tuple(engine(slot=slot, idle_s=1.0, running=int(slot == 0)) for slot in range(4))
    wanted_one = model(max_engines=4)
    first = decide(world(wanted_one, engines=four, demand={"search/chat": 1}, now_s=1000.0))
    assert first.deletes == ()
    later = world(wanted_one, engines=four, demand={"search/chat": 1}, now_s=1601.0, memory=dict(first.memory))
    assert sorted(deletes(decide(later))) == ["search.chat-r1-1", "search.chat-r1-2", "search.chat-r1-3"]


def test_engines_beyond_max_go_at_once_those_with_the_fewest_requests_first():
    """One was replaced when its node fell silent, and is back; or `max` was lowered."""
    four = tuple(engine(slot=slot, running=4 - slot) for slot in range(4))
    busy = decide(world(model(min_engines=3, max_engines=3), engines=four, demand={"search/chat": 10}))
    assert deletes(busy) == ["search.chat-r1-3"]
    back = (engine("lost", slot=4), *four[:3])
    assert deletes(decide(world(model(min_engines=3, max_engines=3), engines=back))) == []


def test_a_model_whose_engines_come_back_has_not_failed_because_another_start_did():
    why = Failure(reason=Reason.ENGINE_DIED, message="it died while it started")
    lost, broken = engine("lost", silent_s=2.0), engine("failed", slot=1, failure=why)
    both = world(model(min_engines=2, max_engines=2), engines=(lost, broken))
    assert status(decide(both)).state == "waking"
    alone = world(model(min_engines=2, max_engines=2), engines=(broken,))
    assert status(decide(alone)).state == "failed"


def test_an_idle_engine_of_a_model_that_needs_fewer_makes_room():
    spread = tuple(engine(model="b/b", slot=slot, share=3 * GIB, running=int(slot == 0)) for slot in range(2))
    others = model("b/b", share=3 * GIB, max_engines=2)
    decision = decide(world(model(share=4 * GIB), others, engines=spread, demand={"search/chat": 1, "b/b": 1}))
    assert deletes(decision) == ["b.b-r1-1"]


def test_eviction_never_goes_below_min():
    pair = tuple(engine(model="b/b", slot=slot, share=3 * GIB) for slot in range(2))
    others = model("b/b", share=3 * GIB, min_engines=1, max_engines=2)
    decision = decide(world(model(share=7 * GIB), others, engines=pair, demand={"search/chat": 1}))
    assert decision.deletes == ()


def test_room_that_one_model_waits_for_is_not_given_to_another():
    going = engine("deleting", model="c/c", share=4 * GIB)
    both = (model("a/big", share=6 * GIB), model("b/small", share=3 * GIB), model("c/c"))
    decision = decide(world(*both, engines=(going,), demand={"a/big": 2, "b/small": 1}))
    assert decision.starts == ()


def test_the_eta_counts_what_has_passed_in_steps():
    loading = replace(engine("loading"), age_s=62.0)
    for load_s, eta_s in ((80.0, 20.0), (10.0, 1.0), (None, None)):
        memory = {"search/chat": ModelMemory(load_s=load_s)}
        decision = decide(world(model(), engines=(loading,), demand={"search/chat": 1}, memory=memory))
        assert model_row(status(decision)).eta_s == eta_s
