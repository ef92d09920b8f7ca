"""One operator writes: at no moment two, whatever their clocks and the API server do."""

import asyncio
import copy
from collections.abc import Callable

import pytest

from cotenant_operator.cluster_errors import ConflictError, NotFoundError, UnreachableError
from cotenant_operator.kinds import CONFIG_MAPS, Kind, Object
from cotenant_operator.lease import DURATION_S, RENEW_S, RETRY_S, Election, FencedError, LeaderWrites


class Store:
    """A Lease as an API server keeps it: a write of an old version is refused."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.down = False
        self.version = 0

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        self._answers()
        if self.lease is None:
            raise NotFoundError("no lease", status=404)
        return copy.deepcopy(self.lease)

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        self._answers()
        if self.lease is not None:
            raise ConflictError("exists", status=409)
        return self._keep(item)

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = 4.0) -> Object:
        self._answers()
        assert self.lease is not None
        if item["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed", status=409)
        return self._keep(item)

    def _keep(self, item: Object) -> Object:
        self.version += 1
        self.lease = copy.deepcopy(item)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease

    def _answers(self) -> None:
        if self.down:
            raise UnreachableError("no answer")


class Clock:
    def __init__(self, start_s: float = 0.0) -> None:
        self.now_s = start_s

    def __call__(self) -> float:
        return self.now_s


def candidate(store: Store, name: str, clock: Clock, wall: Callable[[], float] = lambda: 1e9) -> Election:
    return Election(store, namespace="ns", name="lease", identity=name, monotonic=clock, wall=wall)


async def test_the_first_one_leads_and_the_second_waits() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    await one.step()
    await two.step()
    assert (one.leads(), two.leads()) == (True, False)
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == "one"
    assert store.lease["spec"]["leaseDurationSeconds"] == 15
    assert store.lease["spec"]["leaseTransitions"] == 0


async def test_a_holder_that_renews_keeps_it() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    for _ in range(20):
        await one.step()
        await two.step()
        assert one.leads()
        assert not two.leads()
        clock.now_s += RETRY_S


async def test_a_holder_that_died_is_followed_after_the_duration_and_not_before() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    await one.step()
    await two.step()
    clock.now_s += DURATION_S - 0.1
    await two.step()
    assert not two.leads()
    clock.now_s += 0.2
    await two.step()
    assert two.leads()
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 1


async def test_a_holder_that_cannot_renew_stops_before_another_may_begin() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    await one.step()
    await two.step()
    store.down = True
    clock.now_s += RENEW_S - 0.1
    await one.step()
    assert one.leads()
    clock.now_s += 0.2
    assert not one.leads()
    store.down = False
    await two.step()
    assert not two.leads(), "five more seconds, in which the first one's last write ends"


async def test_clocks_of_machines_are_never_compared() -> None:
    store = Store()
    ahead, behind = Clock(1e6), Clock(3.0)
    one = candidate(store, "one", ahead, wall=lambda: 4e9)
    two = candidate(store, "two", behind, wall=lambda: 1.0)
    await one.step()
    await two.step()
    assert one.leads()
    assert not two.leads()
    behind.now_s += DURATION_S + 1
    await two.step()
    assert two.leads()
    await one.step()
    assert one.leads(), "it does not know yet, but its lease is over soon"
    ahead.now_s += RENEW_S
    assert not one.leads()


async def test_of_two_that_take_it_at_once_one_gets_it() -> None:
    store, clock = Store(), Clock()
    candidates = [candidate(store, str(number), clock) for number in range(5)]
    await asyncio.gather(*(item.step() for item in candidates))
    assert sum(item.leads() for item in candidates) == 1


async def test_an_orderly_end_lets_the_next_begin_at_once() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    await one.step()
    await two.step()
    await one.release()
    await two.step()
    assert not one.leads()
    assert two.leads()


async def test_who_does_not_lead_releases_nothing() -> None:
    store, clock = Store(), Clock()
    one, two = candidate(store, "one", clock), candidate(store, "two", clock)
    await one.step()
    await two.release()
    await two.step()
    assert one.leads()
    assert not two.leads()


class Writes:
    def __init__(self) -> None:
        self.count = 0
        self.deleted: list[tuple[str, str, int | None]] = []

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        return {}

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        self.count += 1
        return item

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "", limit_s: float = 4.0) -> bytes:
        assert limit_s < DURATION_S - RENEW_S
        self.count += 1
        return b""

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object:
        self.count += 1
        return patch

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None:
        self.count += 1
        self.deleted.append((name, uid, grace_s))


async def test_a_leader_that_lost_its_lease_writes_nothing() -> None:
    store, clock, writes = Store(), Clock(), Writes()
    one = candidate(store, "one", clock)
    fenced = LeaderWrites(writes, one.leads)
    item = CONFIG_MAPS.new("a", "ns")
    with pytest.raises(FencedError):
        await fenced.create(CONFIG_MAPS, item, "ns")
    await one.step()
    await fenced.create(CONFIG_MAPS, item, "ns")
    await fenced.apply(CONFIG_MAPS, item)
    await fenced.delete(CONFIG_MAPS, "b", "ns", uid="uid-b", grace_s=5)
    assert writes.deleted == [("b", "uid-b", 5)]
    clock.now_s += RENEW_S + 0.1
    for call in (
        fenced.create(CONFIG_MAPS, item, "ns"),
        fenced.apply(CONFIG_MAPS, item),
        fenced.merge(CONFIG_MAPS, "a", {}, "ns"),
        fenced.delete(CONFIG_MAPS, "a", "ns"),
    ):
        with pytest.raises(FencedError):
            await call
    assert writes.count == 3
