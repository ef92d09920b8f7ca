"""A hub, or what stands before it, that says what cannot be: nothing of it is taken, and who said it is named."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub
from tests.builders.fetching import TOKEN
from tests.builders.partial import CountedPartial
from tests.builders.talking_server import talking_server

from cotenant_cache.backoff import Patience
from cotenant_cache.cache import Cache
from cotenant_cache.client import read_facts
from cotenant_cache.contract import ModelFile
from cotenant_cache.errors import CacheError, CorruptWeightsError, HubUnreachableError
from cotenant_cache.fetch import FetchLimits, fetch_file
from cotenant_cache.hub import resolve, wanted
from cotenant_cache.hub_reads import HubReads
from cotenant_cache.listings import MOST_BYTES, MOST_FILES
from cotenant_cache.source import HubAccess, HubSource
from cotenant_cache.supply import HubSupply

pytestmark = pytest.mark.integration

COMMIT = "a" * 40
NINES = b"9" * 5000
"""More digits than Python makes a number of."""
LIES = {
    "content-range": b"206 Partial Content\r\ncontent-range: bytes %b-%b/10" % (NINES, NINES),
    "location": b"302 Found\r\nlocation: http://hf_other@[::1",
    "retry-after": b"503 Busy\r\nretry-after: Mon, 01 Jan 2024 00:00:00 +9999999999999999",
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(TOKEN)
    yield fake
    fake.close()


def at(url: str, revision: str = COMMIT) -> HubSource:
    return HubSource("org/a", revision, HubAccess(endpoint=url, token=TOKEN))


def test_another_commit_is_not_taken_for_the_one_that_was_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.put("org/a", model_files(1000, seed=1), private=True)
    new = hub.put("org/a", model_files(1000, seed=2))
    hub.repos["org/a"].refs[old] = new  # as a mirror does that only has the newest
    source, access = f"hf://org/a@{old}", HubAccess(endpoint=hub.url, token=TOKEN)
    with Cache(tmp_path, access=access) as cache:
        for asked in (lambda: cache.ensure(source), lambda: cache.plan(source)):
            with pytest.raises(HubUnreachableError) as caught:
                asked()
            said = str(caught.value)
            assert all(word in said for word in (source, hub.url, new, "check HF_ENDPOINT"))
            assert TOKEN not in said
            assert not caught.value.transient
        assert cache.models() == ()
    with pytest.raises(HubUnreachableError, match=f"answers with commit {new} instead"):
        read_facts(source, str(tmp_path), access)
    assert hub.bytes_sent("org/a") == 0
    assert resolve(at(hub.url, "main")).commit == new


def test_what_is_here_by_its_commit_is_served_although_the_hub_names_another(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.put("org/a", model_files(1000, seed=1))
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url)) as cache:
        cache.ensure("hf://org/a")
        new = hub.put("org/a", model_files(1000, seed=2))
        hub.repos["org/a"].refs[old] = new
        assert cache.ensure(f"hf://org/a@{old}").commit == old


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 2**63, 2**64 - 1])
def test_a_size_that_no_file_has_ends_in_an_error_and_nothing_of_it_is_noted(
    size: int, hub: FakeHub, tmp_path: Path
) -> None:
    hub.put("org/a", model_files(1000), listed_bytes={"model.safetensors": size})
    access, said = HubAccess(endpoint=hub.url), rf"org/a.* lists model.safetensors with {size} bytes"
    with Cache(tmp_path, access=access) as cache:
        with pytest.raises(HubUnreachableError, match=said):
            cache.ensure("hf://org/a")
        assert cache.models() == ()
    with pytest.raises(HubUnreachableError, match=said):
        read_facts("hf://org/a", str(tmp_path), access)


def test_sizes_that_nobody_could_add_up_end_in_an_error_and_nothing_of_them_is_noted(
    hub: FakeHub, tmp_path: Path
) -> None:
    files = model_files(1000, shards=3)
    shards = {name: MOST_BYTES // 2 for name in files if name.endswith(".safetensors")}
    hub.put("org/a", files, listed_bytes=shards)
    access = HubAccess(endpoint=hub.url)
    with Cache(tmp_path, access=access) as cache:
        with pytest.raises(HubUnreachableError, match=rf"org/a@.* lists \d+ bytes .at most {MOST_BYTES} are taken"):
            cache.ensure("hf://org/a")
        assert cache.models() == ()
    with pytest.raises(HubUnreachableError, match=f"at most {MOST_BYTES} are taken"):
        read_facts("hf://org/a", str(tmp_path), access)


def test_a_listing_of_more_files_than_a_model_has_is_refused(hub: FakeHub) -> None:
    more = {f"{number}.json": b"{}" for number in range(MOST_FILES)}
    hub.put("org/a", {**model_files(1000), **more})
    listed = resolve(at(hub.url, "main"))
    with pytest.raises(HubUnreachableError, match=rf"lists 1\d+ files .at most {MOST_FILES} are taken"):
        wanted(at(hub.url, listed.commit), listed)


@pytest.mark.parametrize("more_bytes", [-1, 1])
def test_who_lists_another_size_of_what_is_here_takes_it_from_nobody(
    more_bytes: int, hub: FakeHub, tmp_path: Path
) -> None:
    files = model_files(1000)
    first = hub.put("org/a", files)
    supply = HubSupply(FetchLimits(Patience(attempts=2, first_s=0.01)))
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url), supply=supply) as cache:
        cache.ensure("hf://org/a")
        listed = {"model.safetensors": len(files["model.safetensors"]) + more_bytes}
        hub.put("org/a", {**files, "tokenizer.json": b"[]"}, listed_bytes=listed)
        with pytest.raises(CorruptWeightsError, match=r"org/a@.*model\.safetensors"):
            cache.ensure("hf://org/a")
        hub.set_down(True)
        assert cache.ensure(f"hf://org/a@{first}").commit == first
        assert cache.lease(f"hf://org/a@{first}", "me").commit == first


def test_a_listing_that_is_no_text_is_no_listing() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(
            b'HTTP/1.1 200 OK\r\n\r\n{"sha": "%b", "siblings": [{"rfilename": "\xff"}]}' % COMMIT.encode()
        )

    with talking_server(talk) as (url, _), pytest.raises(HubUnreachableError, match="what is no listing"):
        resolve(at(url))


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_make_no_sense_end_in_an_error_of_the_hub(lie: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.put("org/a", {"model.safetensors": b"0123456789"}, private=True)
    file = resolve(at(hub.url, "main")).files["model.safetensors"]
    said = b"HTTP/1.1 " + LIES[lie] + b"\r\ncontent-length: 4\r\n\r\n0123"
    limits = FetchLimits(Patience(attempts=2))
    with talking_server(lambda connection: connection.sendall(said)) as (url, _):
        for ask in (
            lambda: resolve(at(url)),
            lambda: HubReads(at(url)).part("model.safetensors", 4, 8),
            lambda: fetch(at(url), file, tmp_path / "partial", limits),
        ):
            with pytest.raises(CacheError, match="org/a") as caught:
                ask()
            assert "hf_" not in str(caught.value)


def fetch(source: HubSource, file: ModelFile, path: Path, limits: FetchLimits) -> None:
    with CountedPartial(path, file.size_bytes) as partial:
        fetch_file(source, file, partial, limits=limits, sleep=lambda seconds: None)
