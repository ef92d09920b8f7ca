"""Secrets are read by name only, and what cannot be read stays as it was."""

import asyncio
import base64

import pytest

from cotenant_operator.cluster_errors import NotFoundError, UnreachableError
from cotenant_operator.kinds import SECRETS, Kind, Object
from cotenant_operator.secrets_by_name import SecretsByName


class Store:
    def __init__(self, **values: str) -> None:
        self.found: dict[str, Object] = {}
        self.down = False
        self.reads: list[str] = []
        for name, value in values.items():
            self.put(name, value, 1)

    def put(self, name: str, value: str, version: int) -> None:
        item = SECRETS.new(name, "ours", data={"token": base64.b64encode(value.encode()).decode()})
        item["metadata"]["resourceVersion"] = str(version)
        self.found[name] = item

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        assert (kind, namespace) == (SECRETS, "ours")
        self.reads.append(name)
        if self.down:
            raise UnreachableError("no answer")
        if name not in self.found:
            raise NotFoundError(name, status=404)
        return self.found[name]


async def test_only_what_is_wanted_is_read_and_each_once() -> None:
    store = Store(one="first", two="second", foreign="nobody asked")
    secrets = SecretsByName(store, "ours", lambda name: None)
    await secrets.want(["one", "two", "absent"])
    await secrets.want(["one", "two", "absent"])
    assert sorted(store.reads) == ["absent", "one", "two"]
    assert (secrets.value("one", "token"), secrets.value("absent", "token")) == ("first", "")


async def test_a_change_a_deletion_and_an_arrival_are_told_and_nothing_else_is() -> None:
    store, told = Store(one="first", two="second"), []
    secrets = SecretsByName(store, "ours", told.append)
    await secrets.want(["one", "two", "late"])
    await secrets.look()
    assert told == []
    store.put("one", "changed", 2)
    store.put("late", "here", 3)
    del store.found["two"]
    await secrets.look()
    assert sorted(told) == ["late", "one", "two"]
    assert (secrets.value("one", "token"), secrets.get("two")) == ("changed", None)


async def test_while_the_api_server_is_away_keys_stay_what_they_were() -> None:
    store, told = Store(one="first"), []
    secrets = SecretsByName(store, "ours", told.append)
    await secrets.want(["one"])
    store.down = True
    await secrets.look()
    assert (secrets.value("one", "token"), told) == ("first", [])


async def test_one_that_was_never_read_and_cannot_be_is_an_error_and_not_an_absent_one() -> None:
    store = Store(one="first")
    store.down = True
    secrets = SecretsByName(store, "ours", lambda name: None)
    with pytest.raises(UnreachableError):
        await secrets.want(["one"])
    store.down = False
    await secrets.want(["one"])
    assert secrets.value("one", "token") == "first"


async def test_what_nobody_wants_any_more_is_forgotten() -> None:
    store = Store(one="first")
    secrets = SecretsByName(store, "ours", lambda name: None)
    await secrets.want(["one"])
    await secrets.want([])
    assert secrets.get("one") is None


async def test_who_leads_no_more_looks_at_its_own_alone_and_reads_the_others_anew_when_it_leads_again() -> None:
    store = Store(own="first", tenants="second")
    secrets = SecretsByName(store, "ours", lambda name: None)
    await secrets.want(["own", "tenants"])
    looking = asyncio.create_task(secrets.look())
    await asyncio.sleep(0)  # it has begun
    secrets.want_only(["own", "never wanted"])
    await looking
    store.reads.clear()
    await secrets.look()
    assert (store.reads, secrets.value("own", "token"), secrets.get("tenants")) == (["own"], "first", None)
    store.put("tenants", "revoked meanwhile", 2)
    await secrets.want(["own", "tenants"])
    assert secrets.value("tenants", "token") == "revoked meanwhile"


async def test_what_was_just_written_counts_at_once() -> None:
    store, told = Store(one="first"), []
    secrets = SecretsByName(store, "ours", told.append)
    await secrets.want(["one"])
    store.put("one", "written", 9)
    secrets.put(store.found["one"])
    assert secrets.value("one", "token") == "written"
    await secrets.look()
    assert told == ["one"], "told once"


class Slept(Exception):
    """For so many seconds."""


@pytest.mark.parametrize(("count", "pause_s"), [(1, 1.5), (75, 1.5), (150, 3.0), (1000, 20.0)])
async def test_many_secrets_are_read_more_slowly(count: int, pause_s: float) -> None:
    async def sleep(seconds: float) -> None:
        raise Slept(seconds)

    secrets = SecretsByName(Store(), "ours", lambda name: None, sleep=sleep)
    await secrets.want(f"key-{number}" for number in range(count))
    with pytest.raises(Slept, match=f"^{pause_s}$"):
        await secrets.run()
