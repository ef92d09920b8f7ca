"""A connection reads an answer alike wherever its bytes are cut, and is kept only when the next one may follow."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.loadtest_worker import chat
from tests.builders.reference_answers import Asked, read_request, render_error, render_stream, render_whole

from cotenant_loadtests.bodies import render, request_path
from cotenant_loadtests.checks import Finding, echo_answer
from cotenant_loadtests.connection import Connection
from cotenant_loadtests.exchange import Exchange, TenantCount, Traffic
from cotenant_loadtests.planned import Planned

STREAM, WHOLE = chat(1, max_tokens=3), chat(1, max_tokens=3, streamed=False)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def asked(planned: Planned) -> Asked:
    return read_request(request_path(planned), render(planned))


def streamed(fault: str | None = None) -> bytes:
    return b"".join(render_stream(asked(STREAM), fault, b"request-1"))


ANSWERS: dict[str, tuple[bytes, Finding]] = {
    "stream": (streamed(), Finding("ok")),
    "no done": (streamed("no_done"), Finding("no_done")),
    "interim": (INTERIM * 3 + streamed(), Finding("ok")),
    "too many interim": (INTERIM * 9 + streamed(), Finding("framing", "interim")),
    "trailer": (streamed()[:-2] + b"x-checksum: 1\r\n\r\n", Finding("ok")),
    "extension": (streamed().replace(b"\r\n\r\n", b"\r\n\r\n4;x=1\r\n: c\n\r\n", 1), Finding("ok")),
    "rate limited": (render_error("429", b"request-1"), Finding("rate_limited", "injected_429")),
    "redirect": (render_error("redirect", b"request-1"), Finding("redirect", "injected_redirect")),
}


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class FakeOwner:
    """One connection with one request under way. It reads from a transport that takes no file: as with TLS."""

    def __init__(self, planned: Planned = STREAM) -> None:
        self.traffic = Traffic()
        self.findings: list[Finding] = []
        self.freed = 0
        self.exchange = Exchange(
            planned, b"POST", scheduled_ns=0, tenant=TenantCount(), expected=echo_answer(planned)
        )
        self.transport = FakeTransport()
        self.connection = Connection(self, self.exchange, tls=True)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]  # what a connection uses of one

    def opened(self, connection: Connection) -> None:
        connection.send(self.exchange)

    def answered(self, exchange: Exchange, finding: Finding, now_ns: int) -> None:
        assert exchange is self.exchange
        self.findings.append(finding)

    def free(self, connection: Connection, now_ns: int) -> None:
        self.freed += 1

    def closing(self, connection: Connection) -> None:
        pass

    def lost(self, connection: Connection) -> None:
        pass

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.transport.aborted:
                self.connection.data_received(piece)


@pytest.mark.parametrize("name", list(ANSWERS))
def test_an_answer_cut_in_two_anywhere_is_the_same(name: str) -> None:
    data, finding = ANSWERS[name]
    for cut in range(len(data)):
        owner = FakeOwner()
        owner.receive(data[:cut], data[cut:])
        assert owner.findings == [finding], cut
        assert owner.exchange.request_id in (b"request-1", b"")


@pytest.mark.parametrize("name", list(ANSWERS))
def test_an_answer_byte_by_byte_is_the_same(name: str) -> None:
    data, finding = ANSWERS[name]
    owner = FakeOwner()
    owner.receive(*(data[place : place + 1] for place in range(len(data))))
    assert owner.findings == [finding]
    assert finding.outcome == "framing" or owner.exchange.bytes_in == len(data)


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_garbage_anywhere_ends_once_and_raises_nothing(garbage: bytes, place: int) -> None:
    data = streamed()
    place %= len(data)
    owner = FakeOwner()
    owner.receive(data[:place] + garbage, data[place:])
    owner.connection.connection_lost(None)
    assert len(owner.findings) == 1


@pytest.mark.parametrize("cut", range(0, 700, 23))
def test_a_connection_that_ends_in_an_answer_cuts_it_short(cut: int) -> None:
    owner = FakeOwner()
    owner.receive(streamed()[:cut])
    owner.connection.connection_lost(None)
    assert [finding.outcome for finding in owner.findings] == ["cut_short"]


def test_a_connection_that_breaks_is_a_reset() -> None:
    owner = FakeOwner()
    owner.receive(streamed()[:300])
    owner.connection.connection_lost(ConnectionResetError(104, "reset"))
    assert owner.findings == [Finding("reset", "ECONNRESET")]


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_an_answer_without_a_length_ends_with_its_connection(version: bytes) -> None:
    body = render_whole(asked(WHOLE), None, b"r").split(b"\r\n\r\n", 1)[1]
    owner = FakeOwner(WHOLE)
    owner.receive(version + b" 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)
    assert owner.findings == []
    owner.connection.connection_lost(None)
    assert owner.findings == [Finding("ok")]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda data: data, True),
        (lambda data: data.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1), False),
        (lambda data: data.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    ],
)
def test_a_connection_is_kept_when_the_server_keeps_it(change: Callable[[bytes], bytes], kept: bool) -> None:
    owner = FakeOwner(WHOLE)
    owner.receive(change(render_whole(asked(WHOLE), None, b"r")))
    assert owner.findings == [Finding("ok")]
    assert (owner.freed, owner.transport.aborted) == ((1, False) if kept else (0, True))


def test_a_connection_whose_request_was_not_read_to_its_end_is_not_kept() -> None:
    owner = FakeOwner()
    owner.transport.unsent = 10
    owner.receive(render_error("429", b"r"))
    assert (owner.freed, owner.transport.aborted) == (0, True)


def test_bytes_that_nobody_asked_for_end_a_kept_connection() -> None:
    owner = FakeOwner(WHOLE)
    owner.receive(render_whole(asked(WHOLE), None, b"r"), b"HTTP/1.1 200 OK\r\n")
    assert (owner.findings, owner.transport.aborted) == ([Finding("ok")], True)


def test_a_kept_connection_carries_the_next_request() -> None:
    owner = FakeOwner(WHOLE)
    answer = render_whole(asked(WHOLE), None, b"r")
    owner.receive(answer)
    owner.connection.send(owner.exchange)
    owner.receive(*(answer[place : place + 1] for place in range(len(answer))))
    assert owner.findings == [Finding("ok")] * 2
    assert owner.freed == 2


def test_a_dropped_connection_tells_nothing_more() -> None:
    owner = FakeOwner()
    owner.receive(streamed()[:300])
    owner.connection.drop()
    owner.connection.connection_lost(None)
    assert (owner.findings, owner.transport.aborted) == ([], True)
