"""Configurations on their way to workers: the highest generation, whole or not at all, kept for the next start."""

import asyncio
import os
import threading
from pathlib import Path

import msgspec
import pytest
from tests.builders.gateway import config, eventually

from cotenant_serving.contract_usage import UsageBatch
from cotenant_serving.gateway.board import LocalCount
from cotenant_serving.gateway.config_keeper import ConfigKeeper
from cotenant_serving.gateway.config_source import Followed, SharedSource
from cotenant_serving.gateway.operator_client import OperatorError
from cotenant_serving.gateway.operator_link import OperatorLink
from cotenant_serving.gateway.options import parse_options
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.gateway.usage_sender import UsageSender
from cotenant_serving.packed_config import packed


def raw(generation: int) -> bytes:
    return msgspec.json.encode(config(generation=generation))


class Place:
    """A keeper with its files, and a worker that follows."""

    def __init__(self, folder: Path) -> None:
        self.mounted, self.kept = folder / "mounted.json", folder / "gateway.json"
        self.shared = SharedSource.create()
        self.worker = Followed(SharedSource(self.shared.fileno()))
        self.keeper = ConfigKeeper(self.mounted, self.kept, self.shared)

    def mount(self, generation: int, *, content: bytes = b"") -> None:
        temporary = self.mounted.with_suffix(".tmp")
        temporary.write_bytes(content or raw(generation))
        temporary.replace(self.mounted)

    @property
    def seen(self) -> int | None:
        self.worker.poll()
        return self.worker.directory.config.generation if self.worker.directory else None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_highest_generation_holds_wherever_it_comes_from(place: Place) -> None:
    place.keeper.start()
    assert (place.seen, place.keeper.generation) == (None, -1)
    place.mount(3)
    place.keeper.look()
    assert place.seen == 3
    assert place.keeper.offer(raw(5), "operator")
    assert not place.keeper.offer(raw(4), "operator")
    assert not place.keeper.offer(raw(5), "operator")
    place.mount(4)
    place.keeper.look()
    assert place.seen == 5
    place.mount(6)
    place.keeper.look()
    assert place.seen == 6


def test_the_next_start_has_the_newest_of_kept_and_mounted(place: Place, tmp_path: Path) -> None:
    place.mount(3)
    place.keeper.start()
    place.keeper.offer(raw(5), "operator")
    following = Place(tmp_path)
    following.keeper.start()
    assert following.seen == 5
    place.mount(7)
    following = Place(tmp_path)
    following.keeper.start()
    assert following.seen == 7


def test_a_full_disk_keeps_no_revocation_from_workers_and_is_tried_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.mount(3)
    place.keeper.start()
    blocker = place.kept.with_name("gateway.json.tmp")
    blocker.mkdir()
    place.keeper.offer(raw(5), "operator")
    place.keeper.look()
    assert place.seen == 5
    assert caplog.text.count("cannot be kept") == 1
    blocker.rmdir()
    place.keeper.look()
    assert place.kept.read_bytes() == raw(5)


def test_a_damaged_kept_file_is_said_and_the_mounted_one_holds(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.kept.write_text("{")
    place.mount(3)
    place.keeper.start()
    assert place.seen == 3
    assert "is not used" in caplog.text


def test_a_mounted_file_may_be_packed_and_a_damaged_one_changes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.mount(3, content=packed(raw(3)))
    place.keeper.start()
    assert place.seen == 3
    place.mount(4, content=packed(raw(4))[:-9])
    place.keeper.look()
    assert place.seen == 3
    assert "no whole gzip file" in caplog.text
    place.mount(5, content=packed(raw(5)))
    place.keeper.look()
    assert place.seen == 5
    assert place.kept.read_bytes() == raw(5), "as JSON"


async def test_a_worker_reads_what_is_shared_whole_or_not_at_all() -> None:
    shared = SharedSource.create()
    reader = SharedSource(shared.fileno())
    contents = [bytes([number]) * (1 << 20) + b"x" * number for number in range(1, 9)]
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            found = reader.changed()
            if found is not None:
                seen.add(found)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(10):
            for content in contents:
                shared.write(content)
        await eventually(lambda: contents[-1] in seen)
    finally:
        ended.set()
        await asyncio.to_thread(thread.join)
    assert seen <= set(contents)
    shared.write(b"last")
    assert reader.changed() == b"last"
    assert reader.changed() is None
    os.close(shared.fileno())


class Operator:
    """Answers with `content` at once, whatever was asked: an operator that does not wait."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.calls = 0

    def newer(self, after: int, wait_s: int) -> bytes | None:
        self.calls += 1
        if self.content == b"broken":
            raise OperatorError("GET /v1/gateway-config: HTTP 500")
        return self.content

    def add(self, batch: UsageBatch) -> None:
        raise AssertionError("there is no usage")


@pytest.mark.parametrize("content", [None, raw(3), b"{", b"broken"])
async def test_an_operator_that_never_waits_is_not_asked_without_end(
    place: Place, tmp_path: Path, content: bytes | None
) -> None:
    sender = UsageSender(tmp_path, UsageFile(tmp_path / "usage.jsonl", LocalCount()), "gateway-a")
    operator = Operator(content)
    place.keeper.start()
    link = OperatorLink(place.keeper, sender, lambda: operator, "http://operator", LocalCount())
    link.start()
    await eventually(lambda: operator.calls >= 3)
    assert link.finish()
    assert operator.calls <= 20, "one that spins would have been asked thousands of times"


def test_a_gateway_that_asks_an_operator_needs_a_token_and_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    required = ["--config", "c", "--port", "0", "--state", "s"]
    with pytest.raises(SystemExit):
        parse_options([*required, "--operator", "http://cotenant-operator:8600"])
    assert "--pool-token-file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_options([*required, "--operator", "cotenant-operator:8600"])
    assert "is no URL such as http://cotenant-operator:8600" in capsys.readouterr().err
    found = parse_options([*required, "--operator", "http://o:1/", "--pool-token-file", "t"])
    assert (found.operator, found.pool_token_file) == ("http://o:1", Path("t"))
