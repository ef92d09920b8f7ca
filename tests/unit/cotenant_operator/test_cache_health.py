"""Weight caches that cannot be used, and node agents that do not come up, as statuses say it."""

from typing import Any

import msgspec
import pytest
from tests.builders import observed as see
from tests.builders.operator import SOURCE, facts, model, pool, world
from tests.golden import conditions as shown

from cotenant_operator.cache_health import unusable
from cotenant_operator.dated import condition
from cotenant_operator.kinds import Object
from cotenant_operator.object_status import model_status
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_operator.pool_seen import AgentsSeen, PoolSeen
from cotenant_operator.pool_status import pool_status
from cotenant_operator.pool_world import agent_pods, agents_seen
from cotenant_serving.contract import NodeWeights

GIB = 2**30
MADE = plan(
    World(
        world(model("chat", namespace="search", gpu={"memory": "4Gi"}), pool(see.SHARED, see.MIG)).manifests,
        {SOURCE: facts()},
    ),
    {},
)
(CHAT,) = MADE.models
DENIED = ("VolumeUnusable", "/models: Permission denied; let this user write below /models")


def source() -> str:
    assert CHAT.engine is not None
    return CHAT.engine.source


def broken(count: int, problem: tuple[str, str] = DENIED) -> list[NodeWeights]:
    return [NodeWeights(node=f"node-{number}", problem=problem) for number in range(1, count + 1)]


def seen(*nodes: NodeWeights, **more: Any) -> PoolSeen:
    said = msgspec.structs.replace(see.said(see.seen()), weights=nodes)
    on_nodes = pool(see.SHARED, see.MIG, cache={"path": "/models"})
    return see.pool_seen(**{"statuses": (said,), "pool": on_nodes, **more})


def cached(given: PoolSeen, previous: Any = None) -> tuple[str, str, str]:
    status = model_status(CHAT, given, generation=1, previous=previous, now=shown.NOW, url=shown.URL)
    found = condition(status, "Cached")
    return found["status"], found["reason"], found["message"]


def pool_ready(given: PoolSeen) -> tuple[str, str]:
    status = pool_status(MADE.pool("default"), given, generation=1, previous=None, now=shown.NOW)
    found = condition(status, "Ready")
    return found["status"], found["message"]


def test_nodes_whose_cache_cannot_be_used_count_as_nodes_and_the_reason_is_told() -> None:
    good = NodeWeights(node="node-good", here={source(): 8 * GIB})
    status, reason, message = cached(seen(good, *broken(9)))
    assert (status, reason) == ("True", "OnDisk")
    assert message == (
        "on 1 of 10 nodes, 8 GiB each; node-1, node-2, node-3 and 6 more: VolumeUnusable: "
        "/models: Permission denied; let this user write below /models"
    )


def test_where_no_node_can_have_it_the_condition_has_their_reason() -> None:
    assert cached(seen(*broken(2)))[:2] == ("False", "VolumeUnusable")
    assert cached(seen(*broken(1), NodeWeights(node="node-b")))[:2] == ("False", "NotFetchedYet")
    fetching = NodeWeights(node="node-b", fetching={source(): 40})
    assert cached(seen(*broken(1), fetching))[2].startswith("40 % fetched; on none of 2 nodes yet; node-1: Volume")


def test_a_message_has_an_end_however_many_nodes_have_however_many_causes() -> None:
    nodes = [NodeWeights(node=f"node-{n}", problem=("VolumeUnusable", f"{n:04} " + "x" * 500)) for n in range(1000)]
    said = unusable(nodes)
    assert len(said) < 800
    assert said.endswith("and 998 more with other causes")
    assert unusable([NodeWeights(node="fine")]) == ""


def test_the_pool_says_which_caches_cannot_be_used() -> None:
    status, message = pool_ready(seen(NodeWeights(node="node-good"), *broken(1)))
    assert status == "True"
    assert "the weight caches of 1 of 2 nodes cannot use their volume: node-1: VolumeUnusable: /models" in message


@pytest.mark.parametrize(
    ("created", "words"),
    [
        (4, ["1 of 4 node agents are ready", "no folder /models", "describe pod -l cotenant.dev/cache=default"]),
        (1, ["1 of 4 node agents are ready", "3 cannot be made", "hostPath", "daemonset cotenant-cache-default"]),
    ],
)
def test_the_pool_says_that_node_agents_stay_behind_and_where_to_look(created: int, words: list[str]) -> None:
    agents = AgentsSeen(namespace="ours", wanted=4, created=created, ready=1)
    status, message = pool_ready(seen(agents=agents))
    assert status == "True"
    assert [word for word in words if word not in message] == []
    assert "kubectl -n ours describe" in message


def test_agents_that_are_all_ready_and_caches_that_work_are_not_mentioned() -> None:
    agents = AgentsSeen(namespace="ours", wanted=4, created=4, ready=4)
    assert pool_ready(seen(NodeWeights(node="node-1"), agents=agents))[1] == "1 of 1 models are accepted"


COUNTED = {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2}
AGENT = {
    "metadata": {"name": "cotenant-cache-default", "namespace": "ours", "generation": 2},
    "status": {"observedGeneration": 2, **COUNTED},
}


def agent_pod(name: str, waiting: str = "", **labels: str) -> Object:
    states = [{"name": "cache", "state": {"waiting": {"reason": waiting, "message": "no such image"}}}]
    return {
        "metadata": {"name": name, "labels": {"cotenant.dev/cache": "default", **labels}},
        "status": {"phase": "Pending", "containerStatuses": states if waiting else []},
    }


def test_agents_are_counted_once_kubernetes_has_counted_those_of_this_spec() -> None:
    counted = agents_seen(AGENT, (), 0.0)
    assert counted == AgentsSeen(namespace="ours", wanted=4, created=3, ready=2)
    assert agents_seen({**AGENT, "status": {**COUNTED, "observedGeneration": 1}}, (), 0.0) is None
    assert agents_seen({"metadata": AGENT["metadata"]}, (), 0.0) is None
    assert agents_seen(None, (), 0.0) is None


def test_what_an_agents_pod_says_of_itself_comes_before_any_guess() -> None:
    pods = (agent_pod("agent-a"), agent_pod("agent-b", "ImagePullBackOff"))
    message = pool_ready(seen(agents=agents_seen(AGENT, pods, 0.0)))[1]
    assert "2 of 4 node agents are ready: pod agent-b: ImagePullBackOff: container cache: no such image" in message
    assert "cannot be made" not in message


def test_pods_with_ray_and_pods_of_other_pools_are_no_agents() -> None:
    agent, worker = agent_pod("agent"), agent_pod("worker", **{"ray.io/cluster": "default-1a2b3c4d"})
    other = agent_pod("other", **{"cotenant.dev/cache": "more"})
    assert agent_pods([worker, other, agent, {"metadata": {"name": "stranger"}}], "default") == (agent,)


def test_files_in_a_folder_of_a_node_are_gone_with_the_last_node() -> None:
    had = model_status(
        CHAT,
        seen(NodeWeights(node="node-1", here={source(): 8 * GIB})),
        generation=1,
        previous=None,
        now=shown.NOW,
        url=shown.URL,
    )
    one, none = (AgentsSeen(namespace="ours", wanted=count, created=0, ready=0) for count in (1, 0))
    assert cached(seen(agents=one), had)[:2] == ("True", "LoadedBefore")
    assert cached(seen(agents=none), had)[:2] == ("False", "NotFetchedYet")
