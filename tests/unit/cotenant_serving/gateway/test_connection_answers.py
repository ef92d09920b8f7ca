"""How a connection writes its app's answers, right ones and wrong ones; the clock is the test's."""

import asyncio
import re

import pytest
from tests.builders.wire import GET, PAGE, POST, Wire, no_body_wanted, settled

from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.connections import SWEEP_S
from cotenant_serving.gateway.request import JOINED_BYTES


async def test_head_and_first_piece_go_out_in_one_write_and_so_does_each_piece_with_its_framing() -> None:
    async def stream(client: Client) -> None:
        client.begin(200, b"content-type: text/event-stream\r\n")
        client.write(b"data: 1\n\n")
        client.write(b"data: 2\n\n")
        client.end(b"data: [DONE]\n\n")

    wire = await Wire(stream).send(GET)
    first, *others = wire.transport.writes
    assert first.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert first.endswith(b"transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
    assert others == [b"9\r\ndata: 2\n\n\r\n", b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]


async def test_a_whole_answer_is_one_write() -> None:
    wire = await Wire().send(POST % 5 + b"hello")
    assert len(wire.transport.writes) == 1
    assert wire.transport.sent.endswith(b"content-length: 5\r\n\r\nhello")


def undated(sent: bytes) -> bytes:
    """One may have been sent a second later than the other."""
    return re.sub(rb"date: [^\r]+", b"date: then", sent)


@pytest.mark.parametrize("body", [b"", b"an answer", b"x" * (JOINED_BYTES + 1)], ids=["empty", "short", "long"])
@pytest.mark.parametrize(
    "request_", [GET, GET.replace(b"GET", b"HEAD"), GET.replace(b"1.1", b"1.0"), GET + GET, POST % 5 + b"half"]
)
async def test_an_answer_given_at_once_is_that_of_a_beginning_and_an_end(request_: bytes, body: bytes) -> None:
    async def in_two(client: Client) -> None:
        client.begin(404, b"x-a: b\r\n", len(body))
        client.end(body)

    async def in_one(client: Client) -> None:
        client.whole(404, b"x-a: b\r\n", body)

    expected, wire = await Wire(in_two).send(request_), await Wire(in_one).send(request_)
    wire.clock.advance(SWEEP_S)  # who sends its body too slowly
    expected.clock.advance(SWEEP_S)
    await settled()
    assert undated(wire.transport.sent) == undated(expected.transport.sent)
    assert wire.closed == expected.closed
    assert wire.statuses


async def test_an_answer_given_at_once_to_a_client_that_left_goes_nowhere() -> None:
    gate = asyncio.Event()

    async def late(client: Client) -> None:
        await gate.wait()
        client.whole(200, b"", b"late")

    wire = await Wire(late).send(GET)
    wire.lose()
    gate.set()
    await settled()
    assert wire.transport.writes == []


async def test_to_http_1_0_a_stream_ends_with_its_connection() -> None:
    async def stream(client: Client) -> None:
        client.begin(200, b"")
        client.write(b"one")
        client.end(b"two")

    wire = await Wire(stream).send(GET.replace(b"1.1", b"1.0"))
    assert wire.transport.sent.endswith(b"connection: close\r\n\r\nonetwo")
    assert b"chunked" not in wire.transport.sent
    assert wire.transport.closing


async def test_a_head_request_gets_the_head_alone() -> None:
    wire = await Wire().send(PAGE.replace(b"GET", b"HEAD"), PAGE)
    assert wire.statuses == [200, 200]
    assert wire.answers[0][2] == b""


async def test_connection_close_is_honoured() -> None:
    wire = await Wire().send(GET[:-2] + b"Connection: foo, Close\r\n\r\n", GET)
    assert (wire.statuses, wire.closed) == ([200], True)
    assert b"\r\nconnection: close" in wire.answers[0][1]


async def test_the_app_may_end_the_connection_with_its_answer() -> None:
    async def last(client: Client) -> None:
        client.keep_alive = False
        await no_body_wanted(client)

    wire = await Wire(last).send(GET, GET)
    assert (wire.statuses, wire.closed) == ([413], True)


@pytest.mark.parametrize("pieces", [(b"four",), (b"fo", b"ur"), (b"sixsix",), (b"six", b"six"), (b"sixsix", b"")])
async def test_an_answer_of_another_length_than_it_says_does_not_run_into_the_next(pieces: tuple[bytes, ...]) -> None:
    async def lies(client: Client) -> None:
        client.begin(200, b"", 5)
        for piece in pieces[:-1]:
            client.write(piece)
        client.end(pieces[-1])

    wire = await Wire(lies).send(GET)
    assert wire.transport.aborted


@pytest.mark.parametrize("begun", [False, True])
async def test_an_app_that_fails_is_a_500_or_a_broken_connection(begun: bool, caplog) -> None:
    async def fails(client: Client) -> None:
        if begun:
            client.begin(200, b"")
            client.write(b"a")
        raise ValueError("a mistake")

    wire = await Wire(fails).send(GET)
    assert (wire.statuses, wire.transport.aborted) == ([200 if begun else 500], begun)
    assert "a mistake" in caplog.text
    assert not wire.tasks


async def test_an_app_that_forgets_to_answer_is_a_500() -> None:
    async def forgets(client: Client) -> None:
        pass

    wire = await Wire(forgets).send(GET)
    assert wire.statuses == [500]


async def test_after_an_abort_nothing_is_sent() -> None:
    async def aborts(client: Client) -> None:
        client.begin(200, b"")
        client.write(b"a")
        client.abort()
        client.write(b"b")
        client.end(b"c")
        await client.drained()

    wire = await Wire(aborts).send(GET)
    assert wire.transport.aborted
    assert len(wire.transport.writes) == 1
