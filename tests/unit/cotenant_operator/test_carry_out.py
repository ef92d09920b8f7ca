"""Writes of a pass: what fails for one object stops no other, and what is said once is one Event."""

from typing import Any

from tests.builders.watched_api import deployment

from cotenant_operator.actions import Apply, Merge, Remove, SetStatus, Tell
from cotenant_operator.carry_out import CarryOut
from cotenant_operator.cluster_errors import ConflictError, InvalidError, NotFoundError, UnreachableError
from cotenant_operator.kinds import EVENTS, MODELS, PODS, RAY_CLUSTERS, SERVICES, Kind, Object


class Server:
    """Takes everything, but what `fails` names."""

    def __init__(self) -> None:
        self.fails: dict[str, Exception] = {}
        self.taken: list[tuple[str, str]] = []
        self.bodies: list[Object] = []
        self.events: dict[str, Object] = {}

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        name = item["metadata"]["name"]
        if kind is EVENTS:
            if name in self.events:
                raise ConflictError("exists", status=409)
            self.events[name] = item
        return item

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "") -> bytes:
        self._take(subresource or "apply", item["metadata"]["name"])
        self.bodies.append(item)
        return b""

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object:
        self._take("merge", name)
        return patch

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None:
        self._take(f"delete {uid}" + ("" if grace_s is None else f" within {grace_s} s"), name)

    def _take(self, verb: str, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]
        self.taken.append((verb, name))


def carrying(server: Server, written: list[tuple[Object, Object]] | None = None) -> CarryOut:
    def note(kind: Kind, before: Object, now: Object) -> None:
        if written is not None:
            written.append((before, now))

    return CarryOut(server, instance="operator-1", written=note, wall=lambda: 1_795_730_000.0)


def cluster(name: str) -> Apply:
    return Apply(RAY_CLUSTERS, RAY_CLUSTERS.new(name, "ours"))


def status(name: str, **more: Any) -> SetStatus:
    return SetStatus(MODELS, deployment(name, 3), {"observedGeneration": 1, **more})


async def test_every_kind_of_write_reaches_its_object() -> None:
    server = Server()
    writes = [
        cluster("a"),
        Merge(RAY_CLUSTERS, "ours", "b", {"spec": {}}),
        Remove(RAY_CLUSTERS, "ours", "c", "uid-c"),
        Remove(PODS, "ours", "d", "uid-d", grace_s=5),
    ]
    assert await carrying(server).write(writes) == (True, "")
    assert server.taken == [("apply", "a"), ("merge", "b"), ("delete uid-c", "c"), ("delete uid-d within 5 s", "d")]


async def test_what_the_api_server_does_not_take_is_said_in_its_words_and_stops_no_other() -> None:
    server = Server()
    server.fails["a"] = InvalidError("PATCH …: 422", status=422, message="spec.rayVersion: must be a version")
    fine, refused = await carrying(server).write([cluster("a"), Apply(SERVICES, SERVICES.new("b", "ours"))])
    assert not fine
    assert refused == "the API server refuses RayCluster a: spec.rayVersion: must be a version"
    assert server.taken == [("apply", "b")]


async def test_what_changed_or_was_unreachable_is_tried_again_and_what_is_gone_is_not() -> None:
    server = Server()
    server.fails["a"] = NotFoundError("gone", status=404)
    assert await carrying(server).write([cluster("a")]) == (True, "")
    server.fails["a"] = ConflictError("changed", status=409)
    assert await carrying(server).write([cluster("a")]) == (False, "")
    server.fails["a"] = UnreachableError("no answer")
    assert await carrying(server).write([cluster("a")]) == (False, "")


async def test_a_status_is_written_to_the_very_object_it_was_made_for() -> None:
    server, written = Server(), []
    server.fails["broken"] = UnreachableError("no answer")
    fine = await carrying(server, written).statuses([status("broken"), status("one"), status("two")])
    assert not fine
    assert sorted(server.taken) == [("status", "one"), ("status", "two")]
    body = server.bodies[0]
    assert body["metadata"] == {"name": "one", "namespace": "default", "uid": "uid-one"}
    assert set(body) == {"apiVersion", "kind", "metadata", "status"}
    assert [now["status"] for _, now in written] == [{"observedGeneration": 1}] * 2


async def test_what_is_told_again_is_no_second_event_and_a_new_thing_is() -> None:
    server = Server()
    carry_out = carrying(server)
    event = Tell(deployment("one", 3), "Warning", "LoadFailed", "no such file", "Serve")
    await carry_out.events([event])
    await carry_out.events([event])
    assert len(server.events) == 1
    await carry_out.events([Tell(deployment("one", 4), "Warning", "LoadFailed", "another file", "Serve")])
    assert len(server.events) == 2
    found = next(iter(server.events.values()))
    assert found["metadata"]["namespace"] == "default"
    assert found["regarding"]["uid"] == "uid-one"
    assert (found["reportingController"], found["type"]) == ("cotenant.dev/operator", "Warning")


async def test_a_note_is_as_long_as_the_api_server_takes_whatever_its_letters_are() -> None:
    server = Server()
    await carrying(server).events([Tell(deployment("one", 3), "Warning", "LoadFailed", "µ" * 1500, "Serve")])
    (found,) = server.events.values()
    assert found["note"] == "µ" * 512
