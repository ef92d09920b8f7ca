"""Waits that end: by the caller's deadline whatever is going on, and when whoever fetches hangs."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files
from tests.builders.fake_hub import LISTING, FakeHub, Fault
from tests.builders.talking_server import drip, talking_server

from cotenant_cache import telling
from cotenant_cache.cache import Cache
from cotenant_cache.connections import Waits
from cotenant_cache.ensuring import Ask, Ensuring
from cotenant_cache.errors import StalledError, TooLateError
from cotenant_cache.source import HubAccess, HubSource
from cotenant_cache.store import Store
from cotenant_cache.supply import HubSupply

pytestmark = pytest.mark.integration
SOON_S = 30.0
"""On a machine that is busy; without the deadline each of these waits lasts far longer, or for ever."""


def silent(connection: socket.socket) -> None:
    """Until the caller has gone."""
    connection.recv(1)


@contextmanager
def cache_of(root: Path, url: str) -> Iterator[Cache]:
    with Cache(root, access=HubAccess(endpoint=url, token="none")) as cache:
        yield cache


def too_late(cache: Cache, source: str, deadline_s: float = 1.0) -> str:
    """What it says, soon."""
    began = time.monotonic()
    with pytest.raises(TooLateError) as caught:
        cache.ensure(source, deadline_s=deadline_s)
    assert time.monotonic() - began < SOON_S
    return caught.value.message


@pytest.mark.parametrize("talk", [silent, drip(b"HTTP/1.1 200 OK\r\nx: "), drip(b"HTTP/1.1 200 OK\r\n\r\n[")])
def test_a_hub_that_does_not_say_what_a_model_is_is_left_when_the_callers_time_is_over(
    talk: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    with talking_server(talk) as (url, _), cache_of(tmp_path, url) as cache:
        said = too_late(cache, "hf://org/a")
    assert "not here after 1 s; it was asking which files it has, and the hub did not answer" in said


def test_a_hub_that_asks_for_more_patience_than_the_caller_has_is_left(hub: FakeHub, tmp_path: Path) -> None:
    hub.fault(Fault("rate_limit_after", LISTING, times=-1, value=29.0))
    hub.put("org/a", model_files())
    with cache_of(tmp_path, hub.url) as cache:
        assert "not here after 1 s" in too_late(cache, "hf://org/a")


def test_a_model_that_is_here_is_served_although_the_hub_took_all_the_time(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.put("org/a", model_files())
    with cache_of(tmp_path, hub.url) as cache:
        cache.ensure("hf://org/a")
    with talking_server(silent) as (url, _), cache_of(tmp_path, url) as cache:
        assert cache.ensure("hf://org/a", deadline_s=1.0).commit == commit


def test_what_cannot_be_cut_off_lasts_no_longer_than_the_caller_waits() -> None:
    assert Waits(connect_s=10.0).connecting_s() == 10.0
    assert Waits(connect_s=10.0, left_s=lambda: 2.5).connecting_s() == 2.5
    assert 0 < Waits(connect_s=10.0, left_s=lambda: -1.0).connecting_s() < 1  # 0 would be not to wait at all


def ask(hub: FakeHub, **fields: float) -> Ask:
    return Ask(HubSource("org/a", access=HubAccess(endpoint=hub.url, token="none")), **fields)  # type: ignore[arg-type]


def test_who_waits_for_one_that_is_stopped_is_told_which_one_and_the_next_takes_over_when_it_ends(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files()
    hub.put("org/a", files)
    holder = instances.start(tmp_path, ["ensure", "hf://org/a"], stop_at="partial.open:before")
    instances.said(holder, "stopped")
    store = Store(tmp_path, None)
    with pytest.raises(StalledError) as caught:
        Ensuring(store, HubSupply(), ask(hub, stalled_s=1.0)).run()
    store.close()
    said = caught.value.message
    assert "was not heard for 1 s: it is stopped or hangs. End it (`fuser -v " in said
    assert f"process {holder.pid} on {socket.gethostname()}; fetching" in said

    instances.kill(holder)
    assert instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]["files"] == digests(files)


@pytest.mark.parametrize(("name", "times"), [(LISTING, 2), ("model.safetensors", 1)])
def test_one_that_waits_as_long_as_the_hub_asked_for_is_not_taken_for_one_that_hangs(
    name: str, times: int, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_BEAT_S", 0.2)
    commit = hub.put("org/a", model_files())
    hub.fault(Fault("rate_limit_after", name, times=times, value=9.0))
    fetching = threading.Event()
    with cache_of(tmp_path, hub.url) as cache:
        holder = threading.Thread(target=cache.ensure, args=("hf://org/a", "", lambda said: fetching.set()))
        holder.start()
        assert fetching.wait(SOON_S)
        store = Store(tmp_path, None)
        try:
            leased = Ensuring(store, HubSupply(), ask(hub, stalled_s=5.0)).run()
        finally:
            store.close()
            holder.join()
    assert leased.commit == commit


def test_a_disk_that_takes_its_time_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As fsync of a large file does, during which nothing else can be done by its thread."""
    monkeypatch.setattr(telling, "_BEAT_S", 0.05)
    store = Store(tmp_path, None)
    flight = telling.Flight.try_enter(tmp_path, "models--org--a")
    assert flight is not None
    teller = telling.Teller("hf://org/a", flight, lambda said: None, store.clock)
    teller.phase("fetching")
    lock = tmp_path / ".cotenant/flights/models--org--a"
    before, deadline = lock.stat().st_mtime_ns, time.monotonic() + SOON_S
    with teller.beating():
        while lock.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
    flight.leave()
    store.close()
