"""The condition `Cached` of a model and the counts beside it."""

from typing import Any

import msgspec
import pytest
from tests.builders import observed as see
from tests.builders.operator import SOURCE, facts, model, pool, world
from tests.golden import conditions as shown

from cotenant_operator.actions import status_differs
from cotenant_operator.dated import condition
from cotenant_operator.object_reports import model_object_rows
from cotenant_operator.object_status import model_status
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import PoolSeen
from cotenant_serving.contract import NodeWeights

GIB = 2**30


def planned(**spec: Any) -> ModelPlan:
    item = model("chat", namespace="search", **{"gpu": {"memory": "4Gi"}, **spec})
    (made,) = plan(World(world(item, pool(see.SHARED, see.MIG)).manifests, {SOURCE: facts()}), {}).models
    return made


def source() -> str:
    engine = planned().engine
    assert engine is not None
    return engine.source


def status_of(seen: PoolSeen, made: ModelPlan | None = None, previous: Any = None) -> dict[str, Any]:
    return model_status(made or planned(), seen, generation=1, previous=previous, now=shown.NOW, url=shown.URL)


def cold(*nodes: NodeWeights, **seen: Any) -> PoolSeen:
    said = msgspec.structs.replace(see.said(see.seen()), weights=nodes)
    return see.pool_seen(**{"statuses": (said,), **seen})


def warm_before() -> dict[str, Any]:
    return status_of(cold(NodeWeights(node="node1", here={source(): 8 * GIB})))


@pytest.mark.parametrize("cache", [{"path": "/models"}, {"claimName": "models"}])
def test_files_on_a_volume_stay_cached_when_pods_go_until_the_spec_wants_others(cache: dict[str, str]) -> None:
    gone = cold(workers={}, pool=pool(see.SHARED, see.MIG, cache=cache))
    found = condition(status_of(gone, previous=warm_before()), "Cached")
    assert (found["status"], found["reason"]) == ("True", "LoadedBefore")
    other = planned(engine={"contextTokens": 256})
    assert condition(status_of(gone, other, warm_before()), "Cached")["status"] == "Unknown"
    assert condition(status_of(gone), "Cached")["status"] == "Unknown", "nobody has seen it there"


def test_files_that_each_pod_keeps_for_itself_are_gone_with_the_last_pod() -> None:
    status = status_of(cold(workers={}), previous=warm_before())
    found = condition(status, "Cached")
    assert (found["status"], found["reason"]) == ("False", "NotFetchedYet")
    assert "each keeps its own models" in found["message"]
    assert "spec.cache.path or claimName of GPUPool default" in found["message"]
    assert status["cached"] == {"summary": "False"}


def test_while_a_pod_is_there_and_no_cache_speaks_nobody_knows() -> None:
    assert condition(status_of(cold(), previous=warm_before()), "Cached")["status"] == "Unknown"
    lost = condition(status_of(cold(statuses=(), head="lost"), previous=warm_before()), "Cached")
    assert (lost["status"], lost["reason"]) == ("Unknown", "ConductorUnreachable")


def test_a_conductor_that_stays_away_is_the_reason_at_every_pass_until_it_speaks() -> None:
    lost, status = cold(statuses=(), head="lost"), warm_before()
    for number in range(3):
        status = status_of(lost, previous=status)
        found = condition(status, "Cached")
        assert (found["status"], found["reason"]) == ("Unknown", "ConductorUnreachable"), f"pass {number}"
    other = planned(engine={"contextTokens": 256})
    assert condition(status_of(lost, other, status), "Cached")["reason"] == "NotLoadedYet", "nobody has had that"
    assert condition(status_of(cold(), previous=status), "Cached")["reason"] == "NotLoadedYet", "it answers"


def test_the_column_counts_nodes_and_bytes() -> None:
    nodes = [NodeWeights(node=f"node{number}") for number in range(3)]
    has = msgspec.structs.replace(nodes[0], here={source(): 8 * GIB})
    status = status_of(cold(has, *nodes[1:]))
    assert status["cached"] == {"nodes": 1, "of": 3, "bytes": 8 * GIB, "summary": "1/3 8 GiB"}
    assert status_of(cold(*nodes))["cached"] == {"nodes": 0, "of": 3, "bytes": 0, "summary": "0/3"}
    item = {"metadata": {"name": "chat", "namespace": "search"}, "status": status}
    columns, (row,) = model_object_rows([item], now_s=0.0, wide=False)
    assert dict(zip(columns, row, strict=True))["CACHED"] == "1/3 8 GiB"


def test_a_fetch_that_gets_on_is_written_in_steps_and_the_counts_alone_never_are() -> None:
    def at(percent: int) -> dict[str, Any]:
        return status_of(cold(NodeWeights(node="node1", fetching={source(): percent})))

    assert not status_differs(at(40), at(40))
    assert at(40)["cached"] == at(50)["cached"] == {"nodes": 0, "of": 1, "bytes": 0, "summary": "0/1"}
