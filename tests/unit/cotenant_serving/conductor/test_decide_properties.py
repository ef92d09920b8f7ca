"""Whatever the world, the conductor keeps these promises."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.conductor import GIB, device, engine, group, model, world

from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.world import GroupMemory, ModelMemory

NAMES = ["a/one", "b/two", "c/three", "d/four"]
PHASES = ["starting", "waiting", "loading", "ready", "lost", "deleting", "draining"]

engines = st.builds(
    engine,
    st.sampled_from(PHASES),
    model=st.sampled_from(NAMES),
    revision=st.sampled_from(["r1", "r2"]),
    share=st.integers(1, 4).map(lambda count: count * GIB),
    slot=st.integers(0, 3),
    running=st.integers(0, 2),
    idle_s=st.sampled_from([0.0, 30.0, 900.0]),
    on=st.sampled_from([device(0), device(1), device(2)]),
    silent_s=st.sampled_from([0.0, 9.0]),
)
models = st.builds(
    model,
    st.sampled_from(NAMES),
    st.sampled_from(["r1", "r2"]),
    share=st.integers(1, 9).map(lambda count: count * GIB),
    min_engines=st.integers(0, 2),
    max_engines=st.integers(1, 3),
)
worlds = st.builds(
    lambda chosen, there, demand, load_s, devices, most, pending_s, draining: world(
        *chosen,
        engines=tuple(there),
        devices=devices,
        groups=(group(most=most),),
        remembered={"cpu": GroupMemory(devices=len(devices), pending_since_s=pending_s)},
        draining=draining,
        keep_devices={"cpu": 1} if draining else {},
        demand=demand,
        memory={name: ModelMemory(load_s=load_s) for name in NAMES},
    ),
    st.lists(models, unique_by=lambda one: one.name, max_size=4),
    st.lists(engines, unique_by=lambda one: one.args.app, max_size=6),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 20)),
    st.sampled_from([None, 1.0, 60.0]),
    st.sampled_from([(), (device(0),), (device(0), device(1)), (device(0, leaving=True), device(1))]),
    st.integers(0, 4),
    st.sampled_from([None, 999.0, 500.0]),
    st.sampled_from([False, False, True]),
)


@settings(max_examples=300, deadline=None)
@given(worlds)
def test_shares_never_exceed_a_device_and_starts_are_one_at_a_time(before):
    decision = decide(before)
    for where in before.devices:
        here = [start for start in decision.starts if start.device.id == where.id]
        assert len(here) <= (not where.leaving)
        held = sum(e.args.share_bytes for e in before.engines if e.args.device_id == where.id)
        if here:
            assert held + here[0].candidate.share_bytes <= where.memory_bytes


@settings(max_examples=300, deadline=None)
@given(worlds)
def test_nothing_that_serves_a_request_is_evicted_for_another_model(before):
    decision = decide(before)
    by_app = {one.args.app: one for one in before.engines}
    for delete in decision.deletes:
        if "makes room" in delete.why or "idle for" in delete.why:
            assert by_app[delete.app].running == 0


@settings(max_examples=300, deadline=None)
@given(worlds)
def test_an_app_is_deleted_once_and_never_started_while_it_exists(before):
    decision = decide(before)
    deleted = [delete.app for delete in decision.deletes]
    assert len(deleted) == len(set(deleted))
    assert not {start.app for start in decision.starts} & {one.args.app for one in before.engines}


@settings(max_examples=300, deadline=None)
@given(worlds)
def test_a_group_never_grows_beyond_its_most_and_a_draining_cluster_not_at_all(before):
    decision = decide(before)
    most = before.desired.groups[0].max_devices
    assert decision.pods.get("cpu", 0) <= max(0, most - len(before.devices_of("cpu")))
    if before.desired.draining:
        assert (decision.starts, decision.pods) == ((), {})


@settings(max_examples=200, deadline=None)
@given(worlds)
def test_the_same_world_gives_the_same_decision(before):
    assert decide(before) == decide(before)
