"""One file from a fake hub: what it costs, what it asks before it writes, and to whom it says what."""

import json
import multiprocessing
import os
import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache
from tests.builders.fake_hub import FakeHub, Fault, HubProcess
from tests.builders.fetching import LIMITS, TOKEN, Fetching, fetch_in_process, source_of
from tests.builders.operator import CONFIG, safetensors
from tests.builders.partial import CountedPartial
from tests.builders.socket_queues import bytes_on_their_way
from tests.builders.up import until

from cotenant_cache.backoff import Patience
from cotenant_cache.contract import BLOCK_BYTES, ModelFile
from cotenant_cache.disk import Volume
from cotenant_cache.errors import (
    CacheFullError,
    DiskFullError,
    FetchStoppedError,
    FileMissingError,
    HubUnreachableError,
    ModelNotFoundError,
    UnsafeFilesError,
)
from cotenant_cache.fetch import fetch_file
from cotenant_cache.hub import resolve, wanted
from cotenant_cache.source import HubAccess, HubSource

pytestmark = pytest.mark.integration

NAME = "model.safetensors"
CONTENT = random.Random(8).randbytes(2 * BLOCK_BYTES + 12_345)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(TOKEN)
    fake.put("org/big", {NAME: CONTENT, "config.json": b'{"a": 1}', "tokenizer.json": b"{}"})
    yield fake
    fake.close()


@pytest.fixture
def fetching(hub: FakeHub, tmp_path: Path) -> Fetching:
    made = Fetching.of(hub, "org/big", NAME, tmp_path / "partial")
    hub.forget()
    return made


def test_one_request_names_the_commit_and_every_digest(hub: FakeHub) -> None:
    listing = resolve(source_of(hub, "org/big"))

    assert len(hub.requests()) == 1
    assert {name: len(file.digest) for name, file in listing.files.items()} == {
        NAME: 64,
        "config.json": 40,
        "tokenizer.json": 40,
    }
    assert listing.files[NAME].size_bytes == len(CONTENT)
    assert listing.revision == "main"


def test_a_file_costs_its_bytes_once_and_is_reported_as_it_comes(hub: FakeHub, fetching: Fetching) -> None:
    assert fetching.run() == CONTENT
    assert hub.bytes_sent() == len(CONTENT)
    assert fetching.reports == sorted(fetching.reports)
    assert fetching.reports[-1] == len(CONTENT)
    assert fetching.blocks == [BLOCK_BYTES, BLOCK_BYTES, 12_345]


def test_what_is_there_is_hashed_and_not_fetched(hub: FakeHub, fetching: Fetching) -> None:
    fetching.path.write_bytes(CONTENT[:-1])
    assert fetching.run() == CONTENT
    assert hub.bytes_sent() == 1

    hub.forget()
    assert fetching.run() == CONTENT
    assert hub.requests() == []


def test_wrong_bytes_that_lay_there_are_fetched_anew(hub: FakeHub, fetching: Fetching) -> None:
    fetching.path.write_bytes(b"x" + CONTENT[1:])
    assert fetching.run() == CONTENT
    assert hub.bytes_sent() == len(CONTENT)


def test_more_than_the_file_has_is_thrown_away(hub: FakeHub, fetching: Fetching) -> None:
    fetching.path.write_bytes(CONTENT + b"x")
    assert fetching.run() == CONTENT


def test_an_empty_file_needs_no_request(hub: FakeHub, tmp_path: Path) -> None:
    hub.put("org/empty", {"merges.txt": b""})
    made = Fetching.of(hub, "org/empty", "merges.txt", tmp_path / "partial")
    hub.forget()
    assert made.run() == b""
    assert hub.requests() == []


def test_a_hub_that_ignores_ranges_costs_no_byte_of_disk_twice(hub: FakeHub, fetching: Fetching) -> None:
    fetching.path.write_bytes(CONTENT[:BLOCK_BYTES])
    hub.takes_range = False
    assert fetching.run() == CONTENT
    assert fetching.partial is not None
    assert fetching.partial.written_bytes == len(CONTENT) - BLOCK_BYTES


def test_no_room_stops_before_the_block_that_has_none(fetching: Fetching) -> None:
    def room(block_bytes: int) -> None:
        fetching.blocks.append(block_bytes)
        if len(fetching.blocks) == 2:
            raise CacheFullError("no room")

    with pytest.raises(CacheFullError):
        fetching.run(room=room)
    assert fetching.path.read_bytes() == CONTENT[:BLOCK_BYTES]


def test_a_full_disk_keeps_what_came(fetching: Fetching) -> None:
    class FullDisk(CountedPartial):
        def write(self, data: memoryview) -> None:
            if self.size > BLOCK_BYTES:
                raise DiskFullError("the disk is full")
            super().write(data)

    with FullDisk(fetching.path, len(CONTENT)) as partial, pytest.raises(DiskFullError):
        fetch_file(fetching.source, fetching.file, partial, limits=LIMITS)
    assert CONTENT.startswith(fetching.path.read_bytes())
    assert fetching.run() == CONTENT


def test_who_stops_waits_for_no_stalled_hub(hub: FakeHub, fetching: Fetching) -> None:
    fetching.limits = replace(LIMITS, stall_s=3600.0)
    hub.fault(Fault("stall", at=3_000_000))
    with pytest.raises(FetchStoppedError):
        fetching.run(stop=lambda: hub.bytes_sent() == 3_000_000)
    assert fetching.path.stat().st_size <= 3_000_000
    assert fetching.run() == CONTENT


def test_a_pause_that_the_hub_asks_for_is_kept(hub: FakeHub, fetching: Fetching) -> None:
    hub.fault(Fault("rate_limit_after", value=77.0))
    assert fetching.run() == CONTENT
    assert 77.0 <= fetching.slept_s < 79.0


def test_a_pause_of_hours_is_told_instead_of_waited_for(hub: FakeHub, fetching: Fetching) -> None:
    hub.fault(Fault("rate_limit_after", value=7200.0, times=-1))
    with pytest.raises(HubUnreachableError, match="left alone for 7200 s") as caught:
        fetching.run()
    assert (caught.value.transient, caught.value.retry_after_s) == (True, 7200.0)
    assert fetching.slept_s == 0.0


def test_attempts_that_bring_a_lot_are_not_counted(hub: FakeHub, fetching: Fetching) -> None:
    fetching.limits = replace(LIMITS, patience=Patience(attempts=2))
    hub.fault(*(Fault("truncated_wrong", at=at * 2**21) for at in range(1, 8)))
    assert fetching.run() == CONTENT


def test_a_rate_is_kept_by_waiting(fetching: Fetching) -> None:
    fetching.limits = replace(LIMITS, bytes_per_s=2**20)
    frozen = time.monotonic()
    assert fetching.run(clock=lambda: frozen + fetching.slept_s) == CONTENT
    assert fetching.slept_s >= len(CONTENT) / 2**20 - 1.0


def test_a_file_that_is_gone_or_forbidden_is_not_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.put("org/gated", {NAME: b"x" * 100}, gated="files")
    gated = Fetching.of(hub, "org/gated", NAME, tmp_path / "gated")
    with pytest.raises(ModelNotFoundError, match="is gated"):
        gated.run()
    source = source_of(hub, "org/big", hub.repos["org/big"].commit)
    gone = Fetching(source, ModelFile(name="gone.json", size_bytes=3, digest="0" * 40), tmp_path / "gone")
    with pytest.raises(FileMissingError, match=r"has no gone\.json"):
        gone.run()
    assert gated.slept_s == gone.slept_s == 0.0


def test_a_private_model_comes_by_the_token_that_a_file_has_now(hub: FakeHub, tmp_path: Path) -> None:
    hub.put("org/secret", {NAME: CONTENT[:1000]}, private=True)
    token_file = tmp_path / "token"
    token_file.write_text("hf_old\n")
    source = HubSource("org/secret", access=HubAccess(hub.url, token_file=str(token_file)))
    with pytest.raises(ModelNotFoundError, match="HF_TOKEN may not read it"):
        resolve(source)
    token_file.write_text(f"{TOKEN}\n")
    listing = resolve(source)
    made = Fetching(replace(source, revision=listing.commit), listing.files[NAME], tmp_path / "partial")

    assert made.run() == CONTENT[:1000]
    token_file.unlink()
    with pytest.raises(HubUnreachableError, match=r"token cannot be read"):
        made.run()


def test_the_token_stays_with_the_hub_and_out_of_words(hub: FakeHub, fetching: Fetching) -> None:
    assert fetching.run() == CONTENT
    hub_saw, second_host_saw = hub.seen_tokens()

    assert hub_saw == {f"Bearer {TOKEN}"}
    assert second_host_saw == set()
    assert len(hub.requests("GET", "signature=")) == 1
    assert TOKEN not in repr(fetching.source)


def test_a_token_of_two_lines_is_refused_without_being_told(hub: FakeHub, fetching: Fetching) -> None:
    access = HubAccess(hub.url, token="hf_one\r\nhost: evil")
    fetching.source = replace(fetching.source, access=access)
    with pytest.raises(HubUnreachableError, match="characters that HTTP does not allow") as caught:
        fetching.run()
    assert "hf_one" not in str(caught.value)
    assert hub.requests() == []


def test_offline_is_said_at_once(hub: FakeHub, fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE"):
        fetching.run()
    assert hub.requests() == []


def test_a_file_without_a_digest_is_not_wanted(hub: FakeHub) -> None:
    hub.put("org/small", {"config.json": json.dumps(CONFIG).encode(), NAME: safetensors()})
    source = source_of(hub, "org/small")
    listing = resolve(source)
    assert [file.name for file in wanted(source, listing)] == ["config.json", NAME]
    bare = {name: ModelFile(name=name, size_bytes=file.size_bytes, digest="") for name, file in listing.files.items()}
    with pytest.raises(HubUnreachableError, match="lists no digest"):
        wanted(source, replace(listing, files=bare))


@pytest.mark.parametrize("name", ["model.gguf", "pytorch_model.bin", "model.onnx"])
def test_weights_of_a_kind_that_is_not_read_are_named_and_not_fetched(hub: FakeHub, name: str) -> None:
    hub.put("org/other", {"config.json": json.dumps(CONFIG).encode(), name: b"x", "run.py": b"print('never')"})
    source = source_of(hub, "org/other")
    with pytest.raises(UnsafeFilesError, match=re.escape(name)):
        wanted(source, resolve(source))
    assert {path.rpartition("/")[2] for _, path in hub.requests("GET", "/resolve/")} == {"config.json"}


def test_a_redirect_that_is_not_followed_is_told_with_the_file(hub: FakeHub, fetching: Fetching) -> None:
    hub.fault(Fault("nowhere", times=-1))
    with pytest.raises(HubUnreachableError, match=r"model\.safetensors: .*is no http or https address"):
        fetching.run()
    assert fetching.slept_s == 0.0


def test_a_proxy_of_the_environment_is_used(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.repos["org/big"].commit
    file = resolve(source_of(hub, "org/big")).files["config.json"]
    hub.forget()
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    source = HubSource("org/big", commit, HubAccess("http://hub.example"))

    assert Fetching(source, file, tmp_path / "partial").run() == b'{"a": 1}'
    assert [path for _, path in hub.requests()] == [f"http://hub.example/org/big/resolve/{commit}/config.json"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_connect_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with socket.socket() as nobody:  # bound, and does not listen
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"{scheme}_proxy", f"http://user:secret@127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        source = HubSource("org/big", "main", HubAccess(f"{scheme}://hub.example"))
        with pytest.raises(HubUnreachableError, match=rf"proxy of {scheme.upper()}_PROXY .*refused") as caught:
            resolve(source)

    assert "secret" not in caught.value.message


def test_a_file_goes_through_a_volume_to_where_hugging_face_tools_look(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.repos["org/big"].commit
    source = source_of(hub, "org/big", commit)
    volume = Volume(tmp_path)
    for file in resolve(source).files.values():
        with volume.open_partial("org/big", file.digest) as partial:
            fetch_file(source, file, partial, limits=LIMITS)
        volume.publish("org/big", file.digest)
        volume.link("org/big", commit, file.name, file.digest)

    assert Path(try_to_load_from_cache("org/big", NAME, tmp_path, commit) or "").read_bytes() == CONTENT
    assert (volume.partials(), volume.blob_bytes("org/big", file.digest)) == ({}, file.size_bytes)


def all_is_read(hub: HubProcess) -> bool:
    """Twice, as bytes go from one end's queue to the other's while both are looked at."""
    return not any(bytes_on_their_way(hub.cdn_url) for _ in range(2))


def test_who_takes_over_from_a_killed_process_fetches_at_most_a_block_again(tmp_path: Path) -> None:
    chance = random.Random(1)
    with HubProcess(TOKEN) as hub:
        commit = hub.put("org/big", {NAME: CONTENT})
        for kill in range(3):
            at, path = chance.randrange(len(CONTENT)), tmp_path / str(kill)
            hub.forget()
            hub.fault(Fault("stall", at=at))
            process = multiprocessing.get_context("spawn").Process(
                target=fetch_in_process, args=(hub.url, "org/big", commit, NAME, str(path)), daemon=True
            )
            process.start()
            until(lambda at=at: hub.bytes_sent() == at and all_is_read(hub), f"{at} bytes are fetched")
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            assert Fetching.of(hub, "org/big", NAME, path).run() == CONTENT
            assert hub.bytes_sent() <= len(CONTENT) + BLOCK_BYTES, f"killed at {at}"
