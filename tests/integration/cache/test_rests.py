"""A hub that asks to be left alone is left alone: by every model of an instance, and by all who waited with it."""

import threading
from pathlib import Path

import pytest
from tests.builders.cache_nodes import CacheNodes
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import LISTING, FakeHub, Fault

from cotenant_cache.cache import Cache
from cotenant_cache.contract import Progress
from cotenant_cache.disk import Volume
from cotenant_cache.ensuring import Ask, Ensuring, error_of
from cotenant_cache.errors import CacheError, HubUnreachableError
from cotenant_cache.holders import Flight
from cotenant_cache.hub import resolve
from cotenant_cache.source import HubAccess, HubSource
from cotenant_cache.store import Clock, Store, flight_key
from cotenant_cache.supply import HubSupply, Watch
from cotenant_cache.telling import Teller

pytestmark = pytest.mark.integration

LONG = Fault("rate_limit_after", LISTING, value=600.0)


def source(hub: FakeHub, repo: str, token: str = "none") -> HubSource:
    return HubSource(repo, access=HubAccess(endpoint=hub.url, token=token))


def asked_s(caught: "pytest.ExceptionInfo[HubUnreachableError]") -> float:
    assert caught.value.transient
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_no_model_asks_before_the_time_that_the_hub_named_but_another_token_may(hub: FakeHub) -> None:
    for name in ("a", "b"):
        hub.put(f"org/{name}", model_files())
    hub.fault(LONG)
    supply = HubSupply()
    with pytest.raises(HubUnreachableError, match="asks to be left alone for 600 s") as first:
        supply.listed(source(hub, "org/a"))
    assert asked_s(first) == 600.0
    before = len(hub.requests())
    with pytest.raises(HubUnreachableError, match="it was not asked, as it said") as second:
        supply.listed(source(hub, "org/b"))
    assert 0.0 < asked_s(second) <= 600.0
    assert len(hub.requests()) == before
    assert supply.listed(source(hub, "org/b", token="another")).files


def test_no_file_is_fetched_before_the_time_that_the_hub_named(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.put("org/a", model_files())
    file = resolve(source(hub, "org/a")).files["config.json"]
    supply = HubSupply()
    hub.fault(LONG)
    with pytest.raises(HubUnreachableError):
        supply.listed(source(hub, "org/a"))
    before, pinned = len(hub.requests()), HubSource("org/a", commit, source(hub, "org/a").access)
    watch = Watch(lambda done: None, lambda count: None, lambda: False)
    with (
        Volume(tmp_path).open_partial("org/a", file.digest) as partial,
        pytest.raises(HubUnreachableError, match="left alone") as caught,
    ):
        supply.fetch(pinned, file, partial, watch)
    assert 300.0 < asked_s(caught) <= 600.0
    assert len(hub.requests()) == before


def test_what_is_whole_here_is_served_meanwhile_and_the_hub_hears_nothing(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.put("org/a", model_files())
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url, token="none")) as cache:
        cache.ensure("hf://org/a")
        hub.fault(LONG)
        assert cache.ensure("hf://org/a").commit == commit
        before = len(hub.requests())
        assert cache.ensure("hf://org/a").commit == cache.ensure(f"hf://org/a@{commit}").commit == commit
        assert len(hub.requests()) == before


def test_a_short_pause_that_a_hub_asks_for_while_files_come_costs_no_model(hub: FakeHub, tmp_path: Path) -> None:
    hub.put("org/a", model_files(400_000, shards=6))
    hub.fault(Fault("rate_limit_after", "config.json", value=1.0))
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url, token="none")) as cache:
        assert cache.ensure("hf://org/a").size_bytes > 400_000


def test_who_waited_for_another_one_hears_how_long_the_hub_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    store, waits, heard = Store(tmp_path, None), threading.Event(), list[CacheError]()
    flight = Flight.try_enter(tmp_path, flight_key("org/a"))
    assert flight is not None
    teller = Teller("hf://org/a@main", flight, lambda said: None, Clock())
    teller.phase("resolving")
    ask = Ask(source(hub, "org/a"), tell=lambda said: waits.set())

    def wait() -> None:
        try:
            Ensuring(store, HubSupply(), ask).run()
        except CacheError as error:
            heard.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        assert waits.wait(60)
        teller.failed(HubUnreachableError("org/a: HTTP 429", transient=True, retry_after_s=600.0))
        waiter.join(60)
    finally:
        flight.leave()
        waiter.join(60)
        store.close()
    [error] = heard
    assert isinstance(error, HubUnreachableError)
    assert (error.message, error.transient, error.retry_after_s) == ("org/a: HTTP 429", True, 600.0)


def test_an_older_instance_that_names_no_time_is_understood() -> None:
    said = Progress(source="hf://org/a", phase="failed", reason="HubUnreachable", message="no answer")
    error = error_of(said)
    assert isinstance(error, HubUnreachableError)
    assert error.retry_after_s is None


def test_engines_that_ask_a_sidecar_again_and_again_ask_the_hub_once(hub: FakeHub, nodes: CacheNodes) -> None:
    for name in ("a", "b"):
        hub.put(f"org/{name}", model_files())
    hub.fault(Fault("rate_limit_after", LISTING, value=600.0, times=-1))
    program = nodes.start()
    for name in ("a", "a", "b"):
        *_, last = program.lines("/v1/ensure", {"source": f"hf://org/{name}"})
        assert (last["phase"], last["reason"]) == ("failed", "HubUnreachable"), last
        assert 0.0 < last["retry_after_s"] <= 600.0
    assert hub.listings() == 1
