from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from tests.builders import observed as see
from tests.builders.operator import SOURCE, facts, model, pool, world
from tests.golden import conditions as shown

from cotenant_cache.errors import CacheError, HubUnreachableError, ModelNotFoundError
from cotenant_operator.condition_reasons import REASONS
from cotenant_operator.dated import MAX_MESSAGE, condition
from cotenant_operator.event_texts import events_of
from cotenant_operator.object_status import MODEL_CONDITIONS, model_status
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_operator.spec_status import GPUPoolStatus, ModelDeploymentStatus, TenantStatus
from cotenant_operator.tenant_status import invalid_status
from cotenant_serving.contract import Reason

STATUSES: dict[str, type[BaseModel]] = {
    "ModelDeployment": ModelDeploymentStatus,
    "Tenant": TenantStatus,
    "GPUPool": GPUPoolStatus,
}
SITUATIONS = shown.situations()


def planned(**spec: Any) -> ModelPlan:
    item = model("chat", namespace="search", **{"gpu": {"memory": "4Gi"}, **spec})
    (made,) = plan(World(world(item, pool(see.SHARED, see.MIG)).manifests, {SOURCE: facts()}), {}).models
    return made


def unread(said: CacheError | None) -> ModelPlan:
    """What is planned of a model whose files are not read yet, or cannot be."""
    known = {SOURCE: said} if said is not None else {}
    item = model("chat", namespace="search", gpu={"memory": "4Gi"})
    (made,) = plan(World(world(item, pool(see.SHARED, see.MIG)).manifests, known), {}).models
    return made


def status_of(seen: PoolSeen | None, made: ModelPlan | None = None, **given: Any) -> dict[str, Any]:
    arguments = {"generation": 1, "previous": None, "now": shown.NOW, "url": shown.URL, **given}
    return model_status(made or planned(), seen, **arguments)


def test_the_page_shows_what_the_code_says() -> None:
    page, text = shown.page()

    assert page.read_text() == text, "python -m tests.golden.update rewrites it"
    assert len(SITUATIONS) >= 40


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda item: item.title)
def test_every_status_is_one_that_the_schema_has(situation: shown.Situation) -> None:
    STATUSES[situation.item["kind"]].model_validate(situation.item["status"], by_alias=True, by_name=False)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda item: item.title)
def test_every_condition_has_a_reason_of_the_list_and_what_is_not_true_says_why(situation: shown.Situation) -> None:
    for item in situation.item["status"]["conditions"]:
        assert item["reason"] in REASONS
        assert item["message"] or item["status"] == "True" or item["reason"] == "Settled"


def test_a_fraction_is_said_in_bytes_for_each_kind_of_device() -> None:
    message = condition(status_of(see.pool_seen(), planned(gpu={"fraction": 0.5})), "Accepted")["message"]

    assert message.startswith("gets 40 GiB on group shared, 4.8 GiB on group mig-1g10gb; needs 1.9 GiB: ")


def test_a_conductor_that_waits_for_ray_to_come_up_the_first_time_makes_no_pool_ready() -> None:
    def ready(reconciled: bool) -> Mapping[str, Any]:
        seen = see.pool_seen(head="pending", statuses=(see.said(reconciled=reconciled),))
        return condition(status_of(seen), "Ready")

    found = ready(reconciled=False)
    assert (found["status"], found["reason"]) == ("False", "HeadPending")
    assert found["message"].startswith("the head of RayCluster default-1a2b3c4d is not ready yet")
    assert ready(reconciled=True)["reason"] != "HeadPending"


@pytest.mark.parametrize("reason", [Reason.WAKING, Reason.LOADING, Reason.NO_ROOM])
def test_a_pod_that_is_missing_is_no_reason_of_a_model_that_waits_for_something_else(reason: Reason) -> None:
    waits = see.seen(state="waking", reason=reason, message="waits for something else")
    pods = (see.pod("Unschedulable", "0/2 nodes are available"),)

    assert condition(status_of(see.pool_seen(waits, pods=pods)), "Ready")["reason"] == reason


def test_the_page_has_every_reason_that_only_the_cluster_knows() -> None:
    text = shown.PAGE.read_text()

    assert [
        reason for reason in REASONS if f"| `{reason}` |" not in text and reason not in set(map(str, Reason))
    ] == []


def test_a_pass_that_finds_everything_as_it_was_makes_the_same_status() -> None:
    seen = see.pool_seen(see.ready())
    first = status_of(seen)

    assert status_of(seen, previous=first, now="2027-01-01T00:00:00Z") == first


def test_the_moment_of_a_condition_moves_with_its_status_alone() -> None:
    first = status_of(see.pool_seen(see.seen()))
    loading = see.seen(state="waking", reason=Reason.LOADING, message="reads", engines=(see.engine(state="loading"),))
    later = status_of(see.pool_seen(loading), previous=first, now="2027-01-01T00:00:00Z")

    moved = {item["type"]: item["lastTransitionTime"] for item in later["conditions"]}
    assert moved["Placed"] == "2027-01-01T00:00:00Z"
    assert moved["Ready"] == shown.NOW
    assert condition(later, "Ready")["reason"] == "Loading"


def test_a_percent_more_and_a_second_later_are_the_same_status() -> None:
    def at(percent: float, seconds: int) -> dict[str, Any]:
        engine = see.engine(state="loading", stage="reading weights", progress=percent)
        lines = (f"waits for a pod, asked for {seconds} s ago",)
        waking = see.seen(
            state="waking", reason=Reason.LOADING, message=f"{percent:.0%}", engines=(engine,), explanation=lines
        )
        return status_of(see.pool_seen(waking))

    assert at(0.41, 33) == at(0.49, 58)
    assert at(0.49, 58) != at(0.51, 61)
    assert at(0.49, 58)["explanation"] == ["waits for a pod, asked for over 30 s ago"]


def test_models_of_other_namespaces_keep_their_names_to_themselves() -> None:
    held = "n/shared/0: held by ads.secret-0a1b2c3d-0 2 GiB, search.embed-0a1b2c3d-1 1 GiB; makes room for ads/secret"
    waiting = see.seen(state="waiting", reason=Reason.NO_ROOM, message=held, explanation=(held,))
    status = status_of(see.pool_seen(waiting, see.seen("ads/secret")))

    assert "secret" not in repr(status)
    assert "search.embed-0a1b2c3d-1" in condition(status, "Placed")["message"]


def test_while_nobody_can_say_what_was_said_last_stays() -> None:
    before = status_of(see.pool_seen(see.ready()))
    lost = status_of(see.silent(head="lost"), previous=before)

    assert condition(lost, "Ready")["status"] == "Unknown"
    assert {name: lost[name] for name in ("replicas", "placements", "state", "revision")} == {
        name: before[name] for name in ("replicas", "placements", "state", "revision")
    }


@pytest.mark.parametrize("said", [None, HubUnreachableError("no answer"), ModelNotFoundError("not for this token")])
def test_the_commit_that_a_spec_was_resolved_to_stays_while_its_model_is_refused(said: CacheError | None) -> None:
    before = status_of(see.pool_seen(see.ready()))
    refused = status_of(see.pool_seen(see.ready()), unread(said), previous=before)
    no_pool = status_of(None, unread(said), previous=before)

    assert before["source"] == facts().source
    assert condition(refused, "Accepted")["status"] != "True"
    assert (refused["source"], no_pool["source"]) == (before["source"], before["source"])
    assert "targetRevision" not in refused
    again = status_of(see.pool_seen(see.ready()), unread(said), previous=refused)
    assert again["source"] == before["source"], "however often it could not be read"


def test_a_spec_that_was_edited_is_not_held_to_the_commit_of_the_one_before() -> None:
    before = status_of(see.pool_seen(see.ready()))
    edited = status_of(see.pool_seen(see.ready()), unread(None), previous=before, generation=2)

    assert "source" not in edited


def test_a_pool_without_its_cluster_has_no_engines() -> None:
    before = status_of(see.pool_seen(see.ready()))
    gone = status_of(see.silent(head="absent", active=""), previous=before)

    assert condition(gone, "Ready")["status"] == "False"
    assert "placements" not in gone
    assert gone["replicas"] == {"ready": 0, "desired": 0, "summary": "0/0"}


def test_a_model_in_both_clusters_of_a_pool_that_rolls_is_counted_once() -> None:
    loading = see.seen(state="waking", reason=Reason.LOADING, engines=(see.engine(state="loading"),))
    both = see.pool_seen(statuses=(see.said(see.ready()), see.said(loading)))

    assert both.models[see.MODEL].state == "ready"
    assert status_of(both)["replicas"] == {"ready": 1, "desired": 1, "summary": "1/1"}
    loaded = see.pool_seen(statuses=(see.said(see.ready()), see.said(see.ready())))
    assert status_of(loaded)["replicas"] == {"ready": 2, "desired": 1, "summary": "2/1"}


def test_devices_that_a_pool_hands_over_one_by_one_leave_as_many_engines_desired() -> None:
    def ready(count: int) -> Any:
        return see.said(see.ready(engines=tuple(see.engine(app=f"search.chat-{number}") for number in range(count))))

    three = planned(replicas={"max": 3})
    halfway = see.pool_seen(statuses=(ready(2), ready(1)), warm={see.MODEL: 3})
    assert status_of(halfway, three)["replicas"]["summary"] == "3/3"
    lowered = planned(replicas={"max": 2})
    assert status_of(halfway, lowered)["replicas"]["summary"] == "3/2"


@pytest.mark.parametrize("state", ["starting", "waiting", "loading"])
def test_the_engine_of_a_new_revision_is_not_desired_beside_the_one_that_it_replaces(state: str) -> None:
    old, new = see.engine(revision="00aa11bb"), see.engine(app=f"search.chat-{see.REVISION}-0", state=state)
    found = status_of(see.pool_seen(see.ready(engines=(old, new), revision="00aa11bb")))

    assert found["replicas"]["summary"] == "1/1"
    ending = (see.engine(revision="00aa11bb", state="deleting"), see.engine())
    assert status_of(see.pool_seen(see.ready(engines=ending)))["replicas"]["summary"] == "1/1"


@pytest.mark.parametrize(("state", "said"), [("loading", "1/1"), ("ready", "2/1")])
def test_an_engine_that_takes_the_place_of_one_on_a_drained_node_is_not_desired_beside_it(
    state: str, said: str
) -> None:
    engines = (see.engine(), see.engine(app=f"search.chat-{see.REVISION}-1", state=state))

    assert status_of(see.pool_seen(see.ready(engines=engines)))["replicas"]["summary"] == said


def test_a_refused_spec_does_not_hide_that_the_earlier_one_serves() -> None:
    status = status_of(see.pool_seen(see.ready()), planned(gpu={"memory": "1Gi"}))

    assert condition(status, "Accepted")["status"] == "False"
    assert "the earlier revision serves on" in condition(status, "Accepted")["message"]
    assert condition(status, "Ready")["status"] == "True"
    assert "targetRevision" not in status


def test_an_engine_is_placed_although_its_kind_of_node_has_gone() -> None:
    status = status_of(see.pool_seen(see.ready(), node_resources={}, workers={}))

    assert condition(status, "Ready")["status"] == "True"


def test_a_secret_that_is_missing_holds_up_what_needs_a_new_pod_and_nothing_else() -> None:
    def why(*models: Any, **seen: Any) -> tuple[str, str]:
        found = condition(
            status_of(see.pool_seen(*models, missing_secret="Secret 'hub' is missing", **seen)), "Ready"
        )
        return found["status"], found["reason"]

    pending = see.seen(state="waking", reason=Reason.POD_PENDING, message="waits for a pod")
    loading = see.seen(state="waking", reason=Reason.LOADING, message="reads")
    assert why(see.seen(), workers={}) == ("False", "SecretMissing")
    assert why(pending) == ("False", "SecretMissing")
    assert why(pending, pods=(see.pod("Unschedulable", "no room"),)) == ("False", "SecretMissing")
    assert why(see.ready(), workers={}) == ("True", "Ready")
    assert why(see.seen()) == ("False", "Idle"), "a pod that runs has its token"
    assert why(loading) == ("False", "Loading")


def test_a_group_without_a_resource_needs_nothing_of_a_node() -> None:
    cpu = pool({"name": "cpu", "device": "cpu", "memory": "8Gi"})
    item = model("chat", namespace="search")
    (made,) = plan(World(world(item, cpu).manifests, {SOURCE: facts()}), {}).models
    seen = see.pool_seen(see.seen(), pool=cpu, node_resources={}, workers={})

    assert condition(status_of(seen, made), "Placed")["reason"] == "Idle"


def test_one_group_that_nodes_have_is_enough() -> None:
    either = status_of(see.pool_seen(see.seen(), node_resources={"nvidia.com/mig-1g.10gb": 7}, workers={}))
    neither = status_of(see.pool_seen(see.seen(), node_resources={"nvidia.com/mig-1g.10gb": 0}, workers={}))

    assert condition(either, "Placed")["reason"] == "Idle"
    assert condition(neither, "Placed")["reason"] == "NoNodeWithResource"
    assert (
        "nvidia.com/gpu (group shared) or nvidia.com/mig-1g.10gb (group mig-1g10gb)"
        in (condition(neither, "Placed")["message"])
    )


def test_nodes_that_cannot_be_read_accuse_nobody() -> None:
    status = status_of(see.pool_seen(see.seen(), node_resources=None, workers={}))

    assert condition(status, "Placed")["reason"] == "Idle"


def test_a_relative_folder_is_refused_in_a_cluster_alone() -> None:
    item = model("chat", namespace="search", model="file://../../etc")
    given = world(item, known={"file://../../etc": facts()})
    inside = replace(given, manifests=replace(given.manifests, namespace="cotenant-system"))

    assert plan(given, {}).models[0].refusal is None
    refusal = plan(inside, {}).models[0].refusal
    assert refusal is not None
    assert refusal.reason is Reason.MODEL_NOT_FOUND


def test_a_long_message_is_cut() -> None:
    status = invalid_status(MODEL_CONDITIONS, ["x" * 5000], generation=3, previous=None, now=shown.NOW)

    assert [item["observedGeneration"] for item in status["conditions"]] == [3] * 5
    assert {len(item["message"]) for item in status["conditions"]} == {MAX_MESSAGE}


def test_a_name_that_is_taken_is_an_event_once() -> None:
    taken = replace(planned(), name_taken_for=("both",))
    status = status_of(see.pool_seen(see.seen()), taken)
    live = {"kind": "ModelDeployment", "metadata": {"name": "chat", "namespace": "search"}}

    (told,) = events_of(live, status)
    assert (told.type, told.reason) == ("Warning", "NameTaken")
    assert "call this one 'search/chat'" in told.note
    assert events_of({**live, "status": status}, status) == ()
