"""One pass over one pool: what it wants done, and that it wants nothing once that is done."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.builders.watched_api import deployment

from cotenant_operator.actions import Actions, Apply, Merge, Remove
from cotenant_operator.cluster_manifests import ManifestReader
from cotenant_operator.cluster_names import ROLL_ANNOTATION, conductor_service, conductor_url
from cotenant_operator.instants import utc
from cotenant_operator.kinds import (
    CONFIG_MAPS,
    DAEMON_SETS,
    MODELS,
    NETWORK_POLICIES,
    PODS,
    POOLS,
    RAY_CLUSTERS,
    SERVICES,
    Key,
    Object,
    key_of,
)
from cotenant_operator.objects import World
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.plan import plan
from cotenant_operator.planned import PoolPlan
from cotenant_operator.pool_pass import Memory, PoolInput, decide
from cotenant_operator.pool_world import (
    CLUSTER_LABEL,
    NODE_TYPE_LABEL,
    RAY_GROUP_LABEL,
    ConductorSeen,
    PoolWorld,
    pods_seen,
)
from cotenant_operator.roll_world import ClusterSeen, Create, Delete, Handover, Note, Roll, Told
from cotenant_operator.spec import GPUPool
from cotenant_serving.contract import Desired, DesiredModel, ModelStatus, PoolStatus, Reason

NOW_S = 1_795_730_000.0
NAME = "default-0123abcd"
SETTINGS = OperatorSettings(namespace="ours")


def pool_object(**spec: Any) -> Object:
    workers = [{"name": "cpu", "device": "cpu", "memory": "8Gi", "min": 0, "max": 3}]
    item = POOLS.new("default", spec={"workers": workers, **spec})
    item["metadata"] |= {"uid": "uid-pool", "generation": 1, "resourceVersion": "1"}
    return item


def given(
    models: Sequence[Object] = (), *, world: PoolWorld | None = None, pool: Object | None = None, **more: Any
) -> PoolInput:
    """The input of a pass over pool `default` with these objects."""
    objects = {key_of(item): item for item in models}
    pools: dict[Key, Object] = {("", "default"): pool} if pool else {}
    read = ManifestReader("ours").read(models=objects, tenants={}, pools=pools, secrets=[])
    made = plan(World(read.manifests), {})
    planned = tuple(model for model in made.models if model.pool == "default")
    groups = made.pools[0].groups if pool else ()
    return PoolInput(
        name="default",
        pool=read.manifests.pools[0] if read.manifests.pools else None,
        pool_object=pool,
        models={model.name: model for model in planned},
        objects=objects,
        problems={key: said for key in objects if (said := read.problems.get((MODELS.kind, *key)))},
        plan=PoolPlan("default", groups, planned),
        world=world or PoolWorld(now_s=NOW_S),
        settings=SETTINGS,
        **more,
    )


class Rolling:
    """A roll as the test wants it; keeps what it was asked."""

    def __init__(self, roll: Roll) -> None:
        self.roll = roll
        self.seen: Sequence[ClusterSeen] = ()

    def __call__(
        self,
        pool: GPUPool,
        settings: OperatorSettings,
        seen: Sequence[ClusterSeen],
        routed: Collection[str] | None,
        now_s: float,
    ) -> Roll:
        self.seen = seen
        return self.roll


MAKE = Roll(NAME, "Starting", steps=(Create(NAME),), told={NAME: Told()}, routed=(NAME,))
KEEP = Roll(NAME, "Settled", told={NAME: Told()}, routed=(NAME,))


def said(actions: Actions, kind: object) -> list[Object]:
    return [item.item for item in actions.writes if isinstance(item, Apply) and item.kind is kind]


def stored(item: Object, version: int = 5, **more: Any) -> Object:
    """As the API server has it afterwards: with what it adds by itself."""
    metadata = {**item["metadata"], "uid": f"uid-{item['metadata']['name']}", "resourceVersion": str(version)}
    metadata["creationTimestamp"] = "2026-11-26T22:00:00Z"
    return {**item, "metadata": metadata, **more}


def made_cluster() -> Object:
    (item,) = said(decide(given(pool=pool_object()), Rolling(MAKE)), RAY_CLUSTERS)
    return stored(item, status={"state": "ready"})


def settled_world(**more: Any) -> PoolWorld:
    """RayCluster, Service and NetworkPolicy are there and as wanted."""
    cluster = made_cluster()
    world = PoolWorld(clusters=(cluster,), now_s=NOW_S)
    actions = decide(given(pool=pool_object(), world=world), Rolling(KEEP))
    services, policies = (
        {item["metadata"]["name"]: stored(item) for item in said(actions, kind)}
        for kind in (SERVICES, NETWORK_POLICIES)
    )
    (preload,) = map(stored, said(actions, CONFIG_MAPS))
    return replace(world, services=services, policies=policies, preload=preload, **more)


def carried_out(models: Sequence[Object], actions: Actions) -> list[Object]:
    """The objects with the statuses that the pass wants."""
    statuses = {key_of(item.live): item.status for item in actions.statuses if item.kind is MODELS}
    return [{**item, "status": statuses.get(key_of(item), item.get("status"))} for item in models]


def answers(*models: ModelStatus, generation: int = 7) -> ConductorSeen:
    status = PoolStatus(pool="default", epoch="e", generation=generation, models=models, reconciled=True)
    return ConductorSeen(status)


def test_a_new_pool_gets_a_ray_cluster_that_it_owns() -> None:
    actions = decide(given(pool=pool_object()), Rolling(MAKE))
    (cluster,) = said(actions, RAY_CLUSTERS)
    assert (cluster["metadata"]["name"], cluster["metadata"]["namespace"]) == (NAME, "ours")
    assert [owner["uid"] for owner in cluster["metadata"]["ownerReferences"]] == ["uid-pool"]
    assert actions.routed == (conductor_url(NAME, "ours"),)


def test_a_ray_cluster_gets_the_service_of_its_conductor_which_it_owns() -> None:
    world = PoolWorld(clusters=(made_cluster(),), now_s=NOW_S)
    actions = decide(given(pool=pool_object(), world=world), Rolling(KEEP))
    service = next(item for item in said(actions, SERVICES) if item["metadata"]["name"] == conductor_service(NAME))
    assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [f"uid-{NAME}"]
    assert not said(actions, RAY_CLUSTERS)
    assert actions.follow == {NAME: conductor_url(NAME, "ours")}


def test_a_pass_over_what_is_as_wanted_wants_nothing() -> None:
    models = [deployment(f"m{number}", 1) for number in range(20)]
    pool = pool_object()
    world = settled_world()
    first = decide(given(models, pool=pool, world=world), Rolling(KEEP))
    pool = {**pool, "status": next(item.status for item in first.statuses if item.kind is POOLS)}
    later = replace(world, now_s=NOW_S + 900)
    again = decide(given(carried_out(models, first), pool=pool, world=later), Rolling(KEEP))
    assert len(first.statuses) == 21
    assert (again.writes, again.puts, again.statuses, again.events) == ((), (), (), ())


def test_a_pool_with_a_folder_on_nodes_gets_agents_there_and_loses_them_with_it() -> None:
    world = settled_world()
    assert not said(decide(given(pool=pool_object(), world=world), Rolling(KEEP)), DAEMON_SETS)
    on_nodes = pool_object(cache={"path": "/models", "size": "10Gi"})
    (agent,) = said(decide(given(pool=on_nodes, world=world), Rolling(KEEP)), DAEMON_SETS)
    there = replace(world, agent=stored(agent))
    assert not said(decide(given(pool=on_nodes, world=there), Rolling(KEEP)), DAEMON_SETS)
    gone = [
        item
        for item in decide(given(pool=pool_object(), world=there), Rolling(KEEP)).writes
        if isinstance(item, Remove)
    ]
    assert [(item.kind, item.name) for item in gone] == [(DAEMON_SETS, "cotenant-cache-default")]


def test_numbers_of_pods_are_the_autoscalers_and_are_not_taken_back() -> None:
    world = settled_world()
    (cluster,) = world.clusters
    group = {**cluster["spec"]["workerGroupSpecs"][0], "replicas": 2, "scaleStrategy": {"workersToDelete": ["x"]}}
    scaled = {**cluster, "spec": {**cluster["spec"], "workerGroupSpecs": [group]}}
    actions = decide(given(pool=pool_object(), world=replace(world, clusters=(scaled,))), Rolling(KEEP))
    assert actions.writes == ()


def test_what_a_third_party_edited_is_put_right_if_nobody_wrote_meanwhile() -> None:
    world = settled_world()
    (cluster,) = world.clusters
    edited = {**cluster, "spec": {**cluster["spec"], "enableInTreeAutoscaling": False, "suspend": False}}
    actions = decide(given(pool=pool_object(), world=replace(world, clusters=(edited,))), Rolling(KEEP))
    (item,) = said(actions, RAY_CLUSTERS)
    assert item["spec"]["enableInTreeAutoscaling"] is True
    assert "suspend" not in item["spec"], "not ours, so it is left alone"
    assert item["metadata"]["resourceVersion"] == "5"


def test_a_worker_pod_that_ends_is_no_longer_counted_by_kuberay_so_that_its_successor_comes() -> None:
    def pod(name: str, node_type: str = "worker", **metadata: Any) -> Object:
        item = PODS.new(name, "ours", status={"phase": "Running"})
        labels = {CLUSTER_LABEL: NAME, NODE_TYPE_LABEL: node_type, RAY_GROUP_LABEL: "cpu", "mine": "too"}
        item["metadata"] |= {"labels": labels, **metadata}
        return item

    ends = {"deletionTimestamp": "2026-11-26T22:00:00Z"}
    pods = (pod("stays"), pod("goes", **ends), pod("head", "head", **ends))
    actions = decide(given(pool=pool_object(), world=settled_world(pods={NAME: pods})), Rolling(KEEP))
    assert actions.writes == (Merge(PODS, "ours", "goes", {"metadata": {"labels": {RAY_GROUP_LABEL: None}}}),)


def test_an_ending_pod_is_looked_at_again_when_it_may_be_hurried() -> None:
    pod = PODS.new("goes", "ours", status={"phase": "Running"})
    pod["metadata"] |= {
        "uid": "uid-goes",
        "labels": {CLUSTER_LABEL: NAME, NODE_TYPE_LABEL: "worker"},
        "deletionTimestamp": utc(NOW_S - 50 + 930),
        "deletionGracePeriodSeconds": 930,
    }
    status = PoolStatus(pool="default", epoch="e", generation=1, reconciled=True, pods_with_engines=())
    world = settled_world(pods={NAME: (pod,)}, conductors={NAME: replace(answers(), status=status)})
    actions = decide(given(pool=pool_object(), world=world), Rolling(KEEP))
    assert actions.writes == ()
    assert actions.again_s == pytest.approx(10, abs=1)
    later = decide(given(pool=pool_object(), world=replace(world, now_s=NOW_S + 11)), Rolling(KEEP))
    assert later.writes == (Remove(PODS, "ours", "goes", "uid-goes", grace_s=5),)


def test_more_pods_for_a_group_change_the_ray_cluster_in_place() -> None:
    workers = [{"name": "cpu", "device": "cpu", "memory": "8Gi", "min": 1, "max": 9}]
    actions = decide(given(pool=pool_object(workers=workers), world=settled_world()), Rolling(KEEP))
    (item,) = said(actions, RAY_CLUSTERS)
    group = item["spec"]["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 9)


def test_a_conductor_is_told_once_and_above_what_it_knows() -> None:
    models = [deployment("echo", 1)]
    world = replace(settled_world(), conductors={NAME: answers(generation=41)})
    (put,) = decide(given(models, pool=pool_object(), world=world), Rolling(KEEP)).puts
    assert put.desired.generation == 42
    assert [model.name for model in put.desired.models] == ["default/echo"]
    assert [(group.min_devices, group.max_devices) for group in put.desired.groups] == [(0, 3)]
    knows = ConductorSeen(answers().status, "", msgspec.structs.replace(put.desired, generation=43))
    world = replace(world, conductors={NAME: knows})
    assert decide(given(models, pool=pool_object(), world=world), Rolling(KEEP)).puts == ()


@pytest.mark.parametrize(
    ("cache", "per_pod"), [({}, True), ({"path": "/models"}, False), ({"claimName": "m"}, False)]
)
def test_a_conductor_is_told_whether_each_pod_keeps_its_own_models(cache: dict[str, str], per_pod: bool) -> None:
    world = replace(settled_world(), conductors={NAME: answers()})
    (put,) = decide(given([deployment("echo", 1)], pool=pool_object(cache=cache), world=world), Rolling(KEEP)).puts
    assert put.desired.caches_per_pod is per_pod


def test_a_conductor_that_does_not_answer_is_not_told_and_routed_all_the_same() -> None:
    world = replace(settled_world(), conductors={NAME: ConductorSeen(None, "no answer within 5 s")})
    actions = decide(given([deployment("echo", 1)], pool=pool_object(), world=world), Rolling(KEEP))
    assert actions.puts == ()
    assert actions.routed == (conductor_url(NAME, "ours"),)


def test_a_roll_sees_what_conductors_were_told_to_keep_warm() -> None:
    """By any operator: it knows it still when the conductor of the old RayCluster is silent."""
    told = Desired(generation=7, pool="default", warm={"default/echo": 2})
    rolling = Rolling(KEEP)
    for conductor, warm in [(ConductorSeen(answers().status, "", told), told.warm), (ConductorSeen(None, "no"), {})]:
        world = replace(settled_world(), conductors={NAME: conductor})
        decide(given(pool=pool_object(), world=world), rolling)
        assert [cluster.told_warm for cluster in rolling.seen] == [warm]


@pytest.mark.parametrize(
    ("models", "draining", "goes"), [(0, True, True), (1, True, False), (1, False, False), (0, False, False)]
)
def test_a_roll_sees_which_conductor_was_told_to_serve_no_model(models: int, draining: bool, goes: bool) -> None:
    desired = tuple(DesiredModel(name=f"default/echo-{number}") for number in range(models))
    told = Desired(generation=7, pool="default", models=desired, draining=draining)
    rolling = Rolling(KEEP)
    world = replace(settled_world(), conductors={NAME: ConductorSeen(answers().status, "", told)})
    decide(given(pool=pool_object(), world=world), rolling)
    assert [cluster.told_to_go for cluster in rolling.seen] == [goes]


def test_each_conductor_of_a_roll_is_told_its_part() -> None:
    old = stored({**made_cluster(), "metadata": {**made_cluster()["metadata"], "name": "default-old"}})
    world = settled_world()
    world = replace(
        world, clusters=(old, *world.clusters), conductors={NAME: answers(), "default-old": answers(generation=3)}
    )
    roll = Roll(
        NAME,
        "HandingOver",
        told={
            NAME: Told(warm={"default/echo": 1}),
            "default-old": Told(draining=True, keep_devices={"cpu": 0}, without_models=True),
        },
        routed=("default-old", NAME),
        leaving=("default-old",),
    )
    actions = decide(given([deployment("echo", 1)], pool=pool_object(), world=world), Rolling(roll))
    told = {put.cluster: put.desired for put in actions.puts}
    assert told[NAME].warm == {"default/echo": 1}
    assert (told["default-old"].draining, told["default-old"].models) == (True, ())
    assert told["default-old"].keep_devices == {"cpu": 0}


def test_engines_that_both_ray_clusters_of_a_roll_have_are_desired_once() -> None:
    old = stored({**made_cluster(), "metadata": {**made_cluster()["metadata"], "name": "default-old"}})
    row = ModelStatus(model="default/echo", state="ready", reason=Reason.READY, ready_engines=1)
    world = settled_world(conductors={NAME: answers(row), "default-old": answers(row)})
    world = replace(world, clusters=(old, *world.clusters))
    told = {NAME: Told(warm={"default/echo": 1}), "default-old": Told()}
    roll = Roll(NAME, "Warming", told=told, routed=("default-old",))
    actions = decide(given([deployment("echo", 1)], pool=pool_object(), world=world), Rolling(roll))
    (status,) = (item.status for item in actions.statuses if item.kind is MODELS)
    assert status["replicas"] == {"ready": 2, "desired": 1, "summary": "2/1"}


def test_notes_and_deletions_of_a_roll_are_about_what_was_looked_at() -> None:
    world = settled_world()
    (cluster,) = world.clusters
    other = stored({**cluster, "metadata": {**cluster["metadata"], "name": "default-other"}}, version=8)
    world = replace(world, clusters=(cluster, other))
    note = Handover(target="default-other", since_s=NOW_S)
    roll = Roll("default-other", "Warming", steps=(Note(NAME, note),), told={}, routed=(NAME,))
    merges = [
        item
        for item in decide(given(pool=pool_object(), world=world), Rolling(roll)).writes
        if isinstance(item, Merge)
    ]
    assert [(item.name, item.patch["metadata"]["resourceVersion"]) for item in merges] == [(NAME, "5")]
    assert "default-other" in merges[0].patch["metadata"]["annotations"][ROLL_ANNOTATION]
    gone = Roll("default-other", "Settled", steps=(Delete(NAME, "drained"),), routed=("default-other",))
    removed = [
        item
        for item in decide(given(pool=pool_object(), world=world), Rolling(gone)).writes
        if isinstance(item, Remove)
    ]
    assert [(item.name, item.uid) for item in removed] == [(NAME, f"uid-{NAME}")]


def test_without_kuberay_the_pool_says_exactly_that_and_nothing_is_written() -> None:
    world = PoolWorld(now_s=NOW_S, kuberay_served=False)
    actions = decide(given([deployment("echo", 1)], pool=pool_object(), world=world), Rolling(MAKE))
    assert actions.writes == ()
    reasons = {item.kind.kind: _reason(item.status, "Ready") for item in actions.statuses}
    assert reasons == {"GPUPool": "KubeRayMissing", "ModelDeployment": "KubeRayMissing"}


def test_a_model_of_a_pool_that_does_not_exist_says_so() -> None:
    actions = decide(given([deployment("echo", 1)]), Rolling(MAKE))
    (item,) = actions.statuses
    assert _reason(item.status, "Accepted") == "PoolNotFound"
    assert [(event.type, event.reason) for event in actions.events] == [("Warning", "PoolNotFound")]
    assert actions.routed == ()


def test_a_pool_says_which_secret_its_pods_wait_for_and_a_model_too_until_it_is_there() -> None:
    def reasons(missing: str, memory: Memory) -> list[str]:
        models = [deployment("echo", 1)]
        idle = ModelStatus(model="default/echo", state="cold", reason=Reason.IDLE)
        world = settled_world(conductors={NAME: answers(idle)})
        found = decide(given(models, pool=pool_object(), world=world, missing_secret=missing), Rolling(KEEP), memory)
        ready = [item for one in found.statuses for item in one.status["conditions"] if item["type"] == "Ready"]
        assert all(missing in item["message"] for item in ready)
        return [item["reason"] for item in ready]

    memory: Memory = {}
    assert reasons("", memory) == ["Ready", "Idle"]
    assert reasons("Secret 'hub' is not in namespace ours", memory) == ["SecretMissing", "SecretMissing"]
    assert reasons("", memory) == ["Ready", "Idle"]


def test_an_object_that_nobody_can_read_stops_no_other() -> None:
    poison = deployment("poison", 1)
    poison["spec"] = {"task": "no-such-task"}
    actions = decide(given([poison, deployment("echo", 1)], pool=pool_object()), Rolling(KEEP))
    reasons = {
        item.live["metadata"]["name"]: _reason(item.status, "Accepted")
        for item in actions.statuses
        if item.kind is MODELS
    }
    assert reasons == {"poison": "InvalidSpec", "echo": "Fits"}


def test_a_model_that_nobody_can_read_keeps_the_commit_that_this_very_spec_was_resolved_to() -> None:
    source = f"hf://org/small@{'0' * 40}"
    poison = deployment("poison", 1, status={"observedGeneration": 1, "source": source})
    poison["spec"] = {"task": "no-such-task"}

    def told(item: Object) -> dict[str, Any]:
        actions = decide(given([item], pool=pool_object()), Rolling(KEEP))
        (found,) = (said.status for said in actions.statuses if said.kind is MODELS)
        assert _reason(found, "Accepted") == "InvalidSpec"
        return found

    assert told(poison)["source"] == source
    edited = {**poison, "metadata": {**poison["metadata"], "generation": 2}}
    assert "source" not in told(edited)


def test_a_pass_that_remembers_decides_as_one_that_does_not() -> None:
    models = [deployment(name, 1) for name in ("echo", "other", "third")]
    idle = ModelStatus(model="default/echo", state="cold", reason=Reason.IDLE)
    ready = ModelStatus(model="default/echo", state="ready", reason=Reason.READY, ready_engines=1)
    silent = replace(settled_world(), conductors={NAME: ConductorSeen(None, "no answer")})
    worlds = [
        replace(settled_world(), conductors={NAME: answers(*rows)})
        for rows in ((idle,), (idle,), (ready,), (ready,), (idle,), ())
    ]
    memory: Memory = {}
    writes = 0
    for world in [*worlds, silent, silent, *worlds]:
        fresh = decide(given(models, pool=pool_object(), world=world), Rolling(KEEP))
        found = decide(given(models, pool=pool_object(), world=world), Rolling(KEEP), memory)
        assert found.statuses == fresh.statuses
        models = [
            old if old.get("status") == new["status"] else new
            for old, new in zip(models, carried_out(models, found), strict=True)
        ]
        writes += len(found.statuses)
    assert writes > len(models)
    assert len(memory) == 3
    decide(given(models[:1], pool=pool_object(), world=worlds[-1]), Rolling(KEEP), memory)
    assert memory.keys() == {("default", "echo")}


def test_a_mistake_of_ours_about_one_object_stops_no_other() -> None:
    values = given([deployment("broken", 1), deployment("echo", 1)], pool=pool_object())
    broken = replace(values.models["default/broken"], engine=object())  # type: ignore[arg-type]
    values = replace(values, models={**values.models, "default/broken": broken})
    actions = decide(values, Rolling(KEEP))
    assert [item.live["metadata"]["name"] for item in actions.statuses if item.kind is MODELS] == ["echo"]
    assert [fault.__notes__ for fault in actions.faults] == [["status of default/broken"]]


def test_objects_that_are_being_deleted_are_left_alone() -> None:
    going = deployment("going", 1)
    going["metadata"]["deletionTimestamp"] = "2026-11-26T22:10:00Z"
    actions = decide(given([going], pool=pool_object()), Rolling(KEEP))
    assert [item.kind.kind for item in actions.statuses] == ["GPUPool"]


def test_a_model_that_becomes_ready_is_an_event_once() -> None:
    row = ModelStatus(model="default/echo", state="ready", reason=Reason.READY, ready_engines=1)
    world = replace(settled_world(), conductors={NAME: answers(row)})
    models = [deployment("echo", 1)]
    first = decide(given(models, pool=pool_object(), world=world), Rolling(KEEP))
    ready = [event for event in first.events if event.regarding["kind"] == "ModelDeployment"]
    assert [(event.type, event.reason) for event in ready] == [("Normal", "Ready")]
    again = decide(given(carried_out(models, first), pool=pool_object(), world=world), Rolling(KEEP))
    assert [event for event in again.events if event.regarding["kind"] == "ModelDeployment"] == []


def test_trouble_of_a_pool_is_one_event_and_not_one_for_each_model() -> None:
    head = {
        "metadata": {"name": "head", "labels": {"ray.io/node-type": "head", "ray.io/cluster": NAME}},
        "status": {
            "containerStatuses": [
                {
                    "name": "conductor",
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
                }
            ]
        },
    }
    world = replace(settled_world(), pods={NAME: (head,)})
    models = [deployment(f"m{number}", 1) for number in range(50)]
    actions = decide(given(models, pool=pool_object(), world=world), Rolling(KEEP))
    assert [event.regarding["kind"] for event in actions.events] == ["GPUPool"]
    assert "no such image" in actions.events[0].note


def test_conditions_of_other_managers_are_none_of_our_business() -> None:
    models = [deployment("echo", 1)]
    first = decide(given(models, pool=pool_object()), Rolling(KEEP))
    (model,) = carried_out(models, first)
    foreign = {"type": "SomebodyElses", "status": "True", "reason": "X", "message": ""}
    model["status"] = {**model["status"], "conditions": [*model["status"]["conditions"], foreign]}
    again = decide(given([model], pool=pool_object()), Rolling(KEEP))
    assert [item for item in again.statuses if item.kind is MODELS] == []


def test_a_status_that_somebody_changed_is_put_right() -> None:
    models = [deployment("echo", 1)]
    (model,) = carried_out(models, decide(given(models, pool=pool_object()), Rolling(KEEP)))
    model["status"] = {**model["status"], "url": "http://elsewhere"}
    again = decide(given([model], pool=pool_object()), Rolling(KEEP))
    assert [item.live["metadata"]["name"] for item in again.statuses if item.kind is MODELS] == ["echo"]


def _reason(status: dict[str, Any], type_: str) -> str:
    return next(item["reason"] for item in status["conditions"] if item["type"] == type_)


def test_a_pod_whose_volumes_do_not_come_is_looked_at_again_when_it_counts_as_stuck_and_then_told() -> None:
    ready = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": utc(NOW_S - 20)}]
    ready += [{"type": "PodReadyToStartContainers", "status": "False"}]
    labels = {CLUSTER_LABEL: NAME, NODE_TYPE_LABEL: "worker", "cotenant.dev/group": "cpu"}
    pod = {
        "metadata": {"name": "worker-0", "namespace": "ours", "labels": labels},
        "spec": {"nodeName": "node-2"},
        "status": {"phase": "Pending", "conditions": ready},
    }
    world = settled_world(pods={NAME: (pod,)})
    assert decide(given(pool=pool_object(), world=world), Rolling(KEEP)).again_s == pytest.approx(100, abs=1)
    later = replace(world, now_s=NOW_S + 101)
    actions = decide(given(pool=pool_object(), world=later), Rolling(KEEP))
    assert actions.again_s is None
    assert "node-2" in repr(pods_seen(world.pods[NAME], later.now_s))
