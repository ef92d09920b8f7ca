"""What a connection does with its client's pace and bodies, and with its own end; the clock is the test's."""

import asyncio

import orjson
import pytest
from tests.builders.wire import GET, POST, Wire, never, no_body_wanted, settled, whole_body

from cotenant_serving.gateway.client import Client, ClientGoneError
from cotenant_serving.gateway.connections import SWEEP_S, Times
from cotenant_serving.gateway.request import HELD_BYTES

TIMES = Times()


# Time


async def test_who_sends_nothing_at_first_is_closed_after_the_time_for_a_head() -> None:
    wire = Wire()
    wire.clock.advance(TIMES.header_s - 1)
    assert not wire.closed
    wire.clock.advance(1 + SWEEP_S)
    assert (wire.closed, wire.statuses) == (True, [])


async def test_a_head_that_comes_byte_by_byte_has_the_same_time_in_all() -> None:
    wire = await Wire().send(GET)
    wire.clock.advance(TIMES.idle_s - 1)
    for byte in GET[:20]:
        await wire.send(bytes((byte,)))
        wire.clock.advance(TIMES.header_s / 20)
    wire.clock.advance(SWEEP_S)
    assert (wire.closed, wire.statuses) == (True, [200])


async def test_a_connection_may_be_idle_between_two_requests_for_a_while() -> None:
    wire = await Wire().send(GET)
    wire.clock.advance(TIMES.idle_s - 1)
    await wire.send(GET)
    wire.clock.advance(TIMES.idle_s - 1)
    assert (wire.closed, wire.statuses) == (False, [200, 200])
    await wire.send(b"\r\n")  # is no request, and gains no time
    wire.clock.advance(1 + SWEEP_S)
    assert wire.closed


async def test_while_an_answer_is_made_no_time_runs() -> None:
    wire = await Wire(never).send(GET)
    wire.clock.advance(3600)
    assert not wire.closed
    wire.lose()


async def test_a_body_that_trickles_is_a_timeout_to_who_waits_for_it_and_can_be_answered() -> None:
    async def told(client: Client) -> None:
        with pytest.raises(TimeoutError):
            await whole_body(client)
        client.begin(408, b"", 4)
        client.end(b"slow")

    wire = await Wire(told).send(POST % 99)
    for _ in range(3):
        await wire.send(b"a")
        wire.clock.advance(TIMES.body_s / 3)
    wire.clock.advance(SWEEP_S)
    await settled()
    assert (wire.statuses, wire.closed) == ([408], True)
    assert b"connection: close" in wire.answers[0][1]


async def test_a_body_that_nobody_waits_for_does_not_hold_its_connection() -> None:
    wire = await Wire(never).send(POST % 99_999)
    wire.clock.advance(TIMES.body_s + SWEEP_S)
    assert wire.closed
    assert wire.requests[0].gone
    wire.lose()


async def test_a_client_that_takes_nothing_between_two_looks_is_cut_off() -> None:
    wire = Wire(never)
    await wire.send(GET)
    wire.transport.waiting_bytes = 10
    wire.clock.advance(TIMES.stall_s + SWEEP_S)
    wire.transport.waiting_bytes = 9
    wire.clock.advance(TIMES.stall_s + SWEEP_S)
    assert not wire.transport.aborted
    wire.clock.advance(TIMES.stall_s + SWEEP_S)
    assert wire.transport.aborted
    wire.lose()


async def test_nothing_is_looked_at_when_no_connection_is_left() -> None:
    wire = Wire()
    wire.lose()
    wire.clock.advance(SWEEP_S)
    assert wire.clock._due == []
    assert (wire.shared.cap.held.total(), wire.connections) == (0, set())


# Requests behind one another


async def test_requests_sent_at_once_are_answered_one_after_the_other() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def waits(client: Client) -> None:
        mine = len(wire.requests) - 1
        await gates[mine].wait()
        client.begin(200, b"", 1)
        client.end(b"%d" % mine)

    wire = Wire(waits)
    gates[2].set()
    gates[1].set()
    await wire.send(GET * 3)
    assert (len(wire.requests), wire.statuses) == (1, [])
    gates[0].set()
    await settled()
    await settled()
    assert [body for _, _, body in wire.answers] == [b"0", b"1", b"2"]


async def test_what_is_sent_ahead_is_read_to_a_bound() -> None:
    wire = await Wire(never).send(GET, *[b"x" * 1024] * 100)
    assert wire.transport.reading_paused
    assert len(wire.protocol._ahead) <= HELD_BYTES + 1024
    wire.lose()


async def test_a_body_is_read_no_further_than_somebody_takes_it() -> None:
    gate = asyncio.Event()
    taken = []

    async def slow(client: Client) -> None:
        await gate.wait()
        taken.append(await client.body_part())
        taken.append(await client.body_part())

    wire = Wire(slow)
    await wire.send(POST % 1_000_000, *[b"x" * 1024] * 200)
    assert wire.transport.reading_paused
    gate.set()
    await settled()
    assert not wire.transport.reading_paused
    assert HELD_BYTES <= len(taken[0]) <= HELD_BYTES + 2048
    wire.lose()


async def test_a_late_answer_to_an_earlier_request_goes_nowhere() -> None:
    wire = Wire()
    await wire.send(GET)
    first = wire.requests[0]
    first.write(b"x")
    first.end(b"x")
    first.abort()
    await wire.send(GET)
    assert (wire.statuses, wire.closed) == ([200, 200], False)


# Bodies


async def test_a_whole_body_is_taken_without_waiting() -> None:
    taken = []

    async def take(client: Client) -> None:
        taken.extend([client.take_body(), client.take_body(), await client.body_part()])
        client.begin(200, b"", 0)
        client.end()

    await Wire(take).send(POST % 5 + b"hello")
    assert taken == [b"hello", b"", b""]


async def test_a_request_is_given_to_the_app_with_its_short_body() -> None:
    wire = await Wire().send(POST % 5)
    assert wire.requests == []
    await wire.send(b"hel")
    assert wire.requests == []
    await wire.send(b"lo")
    assert [body for _, _, body in wire.answers] == [b"hello"]


async def test_a_short_body_that_does_not_come_keeps_no_answer_back_for_long() -> None:
    wire = await Wire(no_body_wanted).send(POST % 5 + b"hel")
    wire.clock.advance(SWEEP_S)
    await settled()
    assert (wire.statuses, wire.closed) == ([413], True)


async def test_who_waits_for_a_hundred_gets_one_when_its_body_is_wanted() -> None:
    wire = await Wire().send(POST[:-2] % 5 + b"Expect: 100-continue\r\n\r\n")
    assert wire.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"hello")
    assert wire.statuses == [200]


async def test_a_refused_body_is_not_asked_for() -> None:
    wire = await Wire(no_body_wanted).send(POST[:-2] % 5 + b"Expect: 100-continue\r\n\r\n")
    assert [status for status, _, _ in wire.answers] == [413]


async def test_an_answer_before_the_end_of_the_body_is_seen_and_the_rest_thrown_away() -> None:
    wire = await Wire(no_body_wanted).send(POST % 99_999 + b"x")
    assert (wire.statuses, wire.transport.ended, wire.transport.closing) == ([413], True, False)
    assert b"connection: close" in wire.answers[0][1]
    await wire.send(*[b"x" * 1024] * 100, GET)
    assert (wire.statuses, wire.transport.reading_paused, wire.transport.closing) == ([413], False, False)
    wire.clock.advance(TIMES.linger_s + SWEEP_S)
    assert wire.transport.closing


async def test_a_body_that_breaks_its_coding_is_a_client_gone_to_who_reads_it() -> None:
    gone = []

    async def reads(client: Client) -> None:
        client.watch(lambda: gone.append("told"), lambda: None, lambda: None)
        with pytest.raises(ClientGoneError):
            await whole_body(client)
        gone.append("seen")

    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = await Wire(reads).send(head, b"5\r\nhelloX")
    assert (wire.statuses, wire.closed, gone) == ([400], True, ["told", "seen"])


# The client's pace, and its end


async def test_a_slow_client_is_told_of_once_and_again_when_it_has_caught_up() -> None:
    told = []

    async def stream(client: Client) -> None:
        client.watch(lambda: told.append("gone"), lambda: told.append("pause"), lambda: told.append("resume"))
        client.begin(200, b"")
        client.write(b"a")
        await client.drained()
        told.append("drained")
        wire.protocol.pause_writing()
        await client.drained()
        told.append("drained")
        client.end()

    wire = Wire(stream)
    await wire.send(GET)
    assert told == ["drained", "pause"]
    wire.protocol.resume_writing()
    await settled()
    assert told == ["drained", "pause", "resume", "drained"]
    wire.protocol.pause_writing()
    wire.lose()
    assert told[4:] == []  # no answer runs


async def test_who_asks_late_is_told_that_the_client_is_slow_already() -> None:
    told = []

    async def stream(client: Client) -> None:
        wire.protocol.pause_writing()
        client.watch(lambda: None, lambda: told.append("pause"), lambda: None)
        client.begin(200, b"", 0)
        client.end()

    wire = Wire(stream)
    await wire.send(GET)
    assert told == ["pause"]


@pytest.mark.parametrize("asks", ["before", "after"])
async def test_a_client_that_leaves_is_told_of_once(asks: str) -> None:
    gone = []
    gate = asyncio.Event()

    async def waits(client: Client) -> None:
        if asks == "after":
            await gate.wait()
        client.watch(lambda: gone.append(client.gone), lambda: None, lambda: None)
        await client.drained()
        await gate.wait()
        client.begin(200, b"")
        client.write(b"a")
        client.end()

    wire = await Wire(waits).send(GET)
    wire.lose()
    gate.set()
    await settled()
    assert (gone, wire.transport.writes) == ([True], [])
    assert not wire.tasks


async def test_a_client_that_leaves_in_its_body_is_an_error_to_who_reads_it() -> None:
    seen = []

    async def reads(client: Client) -> None:
        try:
            await whole_body(client)
        except ClientGoneError:
            seen.append(True)

    wire = await Wire(reads).send(POST % 99_999 + b"a")
    wire.lose()
    await settled()
    assert seen == [True]


# Shutdown


async def test_at_shutdown_an_idle_connection_closes_at_once() -> None:
    wire = await Wire().send(GET)
    wire.protocol.shutdown()
    assert wire.transport.closing


async def test_at_shutdown_a_running_request_is_answered_and_no_other() -> None:
    gate = asyncio.Event()

    async def waits(client: Client) -> None:
        await gate.wait()
        client.begin(200, b"", 0)
        client.end()

    wire = await Wire(waits).send(GET + GET)
    wire.protocol.shutdown()
    assert not wire.closed
    gate.set()
    await settled()
    assert (wire.statuses, wire.closed) == ([200], True)
    assert b"connection: close" in wire.answers[0][1]


# Tenants


async def test_a_connection_counts_for_the_tenant_that_used_it_last() -> None:
    async def uses(client: Client) -> None:
        name = dict(client.headers)[b"x-key"].decode()
        client.begin(200 if client.belongs_to(name) else 429, b"", 0)
        client.end()

    def as_tenant(name: str) -> bytes:
        return GET[:-2] + b"X-Key: %b\r\n\r\n" % name.encode()

    first = Wire(uses, per_tenant=1)
    second, third = Wire(uses, shared=first.shared), Wire(uses, shared=first.shared)
    await first.send(as_tenant("a"), as_tenant("a"))
    await second.send(as_tenant("a"), as_tenant("b"), as_tenant("a"))
    await third.send(as_tenant("b"))
    assert (first.statuses, second.statuses, third.statuses) == ([200, 200], [429, 200, 429], [429])
    second.lose()
    await third.send(as_tenant("b"))
    await first.send(as_tenant("c"))
    await third.send(as_tenant("a"))
    assert (first.statuses[2:], third.statuses[1:]) == ([200], [200, 200])


# Metrics


async def test_what_is_no_request_is_counted_by_its_error() -> None:
    counted: list[str] = []
    wire = Wire()
    wire.shared.on_refusal = counted.append
    await wire.send(GET.replace(b"GET", b"BREW"))
    assert counted == ["method_not_allowed"]


# Pages


async def test_a_page_sees_what_it_was_asked_as_asgi_has_it() -> None:
    wire = await Wire().send(b"GET /docs%20?a=%20b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: y\r\n\r\n")
    scope = wire.pages[0]
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/docs ", b"/docs%20", b"a=%20b")
    assert (scope["method"], scope["http_version"], scope["headers"]) == ("GET", "1.1", [(b"host", b"x")])


async def test_a_page_whose_body_does_not_come_is_a_timeout_in_its_apis_shape() -> None:
    wire = await Wire().send(b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
    wire.clock.advance(TIMES.body_s + SWEEP_S)
    await settled()
    assert (wire.statuses, wire.closed) == ([408], True)
    assert "did not arrive" in orjson.loads(wire.answers[0][2])["error"]
