"""Bodies that come in chunks: read as they come, to their end, and given up in time whatever it is that drips."""

import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders.fake_hub import FakeHub, Fault
from tests.builders.fetching import TOKEN, Fetching
from tests.builders.talking_server import drip, talking_server

from cotenant_cache.backoff import Patience, TryAgainError
from cotenant_cache.connections import Waits, get
from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.fetch import FetchLimits

pytestmark = pytest.mark.integration

HEADERS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WAITS = Waits(connect_s=60.0, answer_s=60.0, stall_s=60.0)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(TOKEN)
    yield fake
    fake.close()


def in_chunks(content: bytes, sizes: Iterator[int]) -> bytes:
    body, at = b"", 0
    while at < len(content):
        piece = content[at : at + next(sizes)]
        body, at = body + b"%x\r\n%b\r\n" % (len(piece), piece), at + len(piece)
    return body + b"0\r\nx-checksum: none\r\n\r\n"


def pieces(*parts: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)

    return talk


def read(url: str, most_bytes: int = 2**20, waits: Waits = WAITS) -> tuple[bytes, TryAgainError | None]:
    """What came, and how it ended."""
    content, buffer = b"", memoryview(bytearray(most_bytes))
    with get(f"{url}/file", {}, inner_allowed=True, waits=waits) as answer:
        try:
            while got := answer.readinto(buffer):
                content += buffer[:got]
            assert answer.readinto(buffer) == 0  # and stays at its end
        except TryAgainError as error:
            return content, error
    return content, None


@pytest.mark.parametrize("seed", range(10))
def test_a_body_in_chunks_is_read_to_its_end_however_it_is_cut_into_pieces(seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(chance.randrange(1, 200_000))
    longest = chance.choice((1_000, 70_000, 300_000))
    said = HEADERS + in_chunks(content, iter(lambda: chance.randrange(1, longest), None))
    cuts = sorted(chance.sample(range(len(said)), min(len(said), 40)))
    with talking_server(pieces(*(said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)))) as (
        url,
        _,
    ):
        assert read(url, chance.choice((1_000, 2**20))) == (content, None)


def test_a_body_that_breaks_off_anywhere_keeps_what_came_and_is_not_taken_for_a_whole_one() -> None:
    body = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    end = body.index(b"0\r\n")
    for cut in range(end + 1):
        with talking_server(pieces(HEADERS + body[:cut])) as (url, _):
            content, error = read(url)
            came = body[3:6][: max(0, cut - 3)] + body[15:17][: max(0, cut - 15)]
            assert content == came, body[:cut]
            assert error is not None, body[:cut]


@pytest.mark.parametrize("size", [b"", b"zz", b"-5", b"0x", b"3 3"])
def test_what_is_no_length_of_a_chunk_ends_in_an_error(size: bytes) -> None:
    with talking_server(pieces(HEADERS + b"3\r\nabc\r\n" + size + b"\r\nabc\r\n")) as (url, _):
        content, error = read(url)
    assert content.startswith(b"abc")
    assert error is not None


@pytest.mark.parametrize("begun", [b"1", b"1;x=", b"0\r\n", b"0\r\nx: "])
def test_what_stands_between_chunks_and_after_the_last_has_an_end(begun: bytes) -> None:
    with talking_server(drip(HEADERS + b"3\r\nabc\r\n" + begun)) as (url, _):
        content, error = read(url, waits=replace(WAITS, answer_s=0.4))
    assert content == b"abc"
    assert error is not None
    assert error.reason == "no whole answer came in 0.4 s"


def test_trailers_that_never_end_have_an_end() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEADERS + b"0\r\n")
        while True:
            connection.sendall(b"x: y\r\n" * 1000)

    with talking_server(talk) as (url, _):
        _, error = read(url, waits=replace(WAITS, answer_s=0.4))
    assert error is not None


def test_a_hub_that_sends_a_chunk_now_and_then_is_left_and_what_came_is_reported(
    hub: FakeHub, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(3 * 2**20)
    hub.put("org/a", {"model.safetensors": content}, private=True)
    hub.fault(Fault("drip_chunked", at=1_500_000, times=-1, value=0.02))
    limits = FetchLimits(Patience(attempts=2), slow_bytes_per_s=1000, slow_s=0.5)
    fetching = Fetching.of(hub, "org/a", "model.safetensors", tmp_path / "partial", limits=limits)
    with pytest.raises(HubUnreachableError, match=r"only \d+ bytes came in \d+ s"):
        fetching.run()
    assert max(fetching.reports) >= 1_500_000
    assert (tmp_path / "partial").read_bytes() == content[: max(fetching.reports)]
