"""What one connection may make the gateway hold or do: requests sent ahead, slow readers, slow heads, deadlines."""

import asyncio

import pytest
from tests.builders.wire import CHUNKED, GET, POST, FakeTransport, Wire, settled

from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.connections import SWEEP_S, Times
from cotenant_serving.gateway.request import HELD_BYTES, JOINED_BYTES
from cotenant_serving.gateway.upstream_lean import LeanUpstream

TIMES = Times()


async def test_a_connection_that_fails_at_its_deadline_keeps_no_other_from_its_own(caplog) -> None:
    class Broken(FakeTransport):
        def close(self) -> None:
            raise ValueError("a mistake")

    first = Wire()
    others = [Wire(shared=first.shared) for _ in range(3)]
    for broken in (first, others[1]):
        broken.transport = broken.protocol.transport = Broken()
    first.clock.advance(TIMES.header_s + SWEEP_S)
    assert [wire.closed for wire in (first, *others)] == [True] * 4
    assert caplog.text.count("a mistake") >= 2
    later = Wire(shared=first.shared)
    first.clock.advance(TIMES.header_s + 2 * SWEEP_S)
    assert later.closed


async def test_a_flood_of_requests_on_one_connection_is_read_to_a_bound_however_fast_they_are_answered() -> None:
    wire, read = Wire(), GET * 5000
    for _ in range(400):
        if not wire.transport.reading_paused:
            wire.protocol.data_received(read)
        await asyncio.sleep(0)
        assert len(wire.protocol._ahead) <= HELD_BYTES + len(read)
    assert len(wire.requests) >= 400 - 2


@pytest.mark.parametrize("raw", [GET, b"\r\n" + POST % 3 + b"abc", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"])
async def test_reading_goes_on_when_what_waited_is_answered(raw: bytes) -> None:
    count = 2 * HELD_BYTES // len(raw)
    wire = await Wire().send(raw * count + raw[:20])
    assert wire.transport.reading_paused
    for _ in range(count):
        await asyncio.sleep(0)
    await settled()
    assert not wire.transport.reading_paused
    await wire.send(raw[20:])
    assert wire.statuses == [200] * (count + 1)


async def test_requests_that_wait_are_not_copied_for_each_that_is_read() -> None:
    class Counted(bytes):
        """Tells how much is cut out of it."""

        copied = 0

        def __getitem__(self, part):
            cut = super().__getitem__(part)
            if not isinstance(part, slice):
                return cut
            Counted.copied += len(cut)
            return Counted(cut)

        def __radd__(self, other):
            return Counted(other + bytes(self))

    for raw in (GET, POST % 3 + b"abc", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"):
        Counted.copied = 0
        wire = await Wire().send(Counted(raw * 1000))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert wire.statuses == [200] * 1000
        assert Counted.copied <= 2 * len(raw) * 1000


async def test_while_a_client_is_slow_no_other_request_of_it_begins() -> None:
    wire = Wire()

    async def fills(client: Client) -> None:
        wire.protocol.pause_writing()  # as the transport does in `write`
        client.whole(200, b"", b"much")

    wire._handler = fills
    await wire.send(GET * 3, GET, *[b"x" * 1024] * 100)
    assert wire.statuses == [200]
    assert wire.transport.reading_paused
    assert len(wire.protocol._ahead) <= HELD_BYTES + 1024
    for answered in (2, 3, 4):
        wire.protocol.resume_writing()
        await settled()
        assert wire.statuses == [200] * answered


async def test_a_request_that_comes_while_its_client_is_slow_begins_when_that_has_caught_up() -> None:
    wire = await Wire().send(GET)
    wire.protocol.pause_writing()
    await wire.send(GET[:30], GET[30:])
    assert wire.statuses == [200]
    wire.protocol.resume_writing()
    await settled()
    assert wire.statuses == [200, 200]


async def test_half_of_an_empty_line_before_a_request_is_waited_for_and_gains_no_time() -> None:
    wire = await Wire().send(b"\r", b"\n" + GET)
    assert wire.statuses == [200]
    wire.clock.advance(TIMES.idle_s - 1)
    await wire.send(b"\r")
    wire.clock.advance(1 + SWEEP_S)
    assert wire.closed


async def test_a_head_that_comes_byte_by_byte_is_looked_at_once() -> None:
    looked: list[int] = []

    class Counted(bytes):
        def find(self, what, start=0, end=None):
            looked.append(len(self) - start)
            return super().find(what, start, len(self) if end is None else end)

        def __add__(self, other):
            return Counted(bytes(self) + other)

        def __getitem__(self, part):
            cut = super().__getitem__(part)
            return Counted(cut) if isinstance(part, slice) else cut

    wire = Wire()
    wire.protocol.data_received(Counted(GET[:-2] + b"X: " + b"a" * 60_000))
    looked.clear()
    await wire.send(*[b"a"] * 100)
    ends = [size for size in looked if size < 60_000]
    assert len(ends) == 100
    assert max(ends) <= 4
    await wire.send(b"\r", b"\n", b"\r", b"\n")
    assert wire.statuses == [200]


@pytest.mark.parametrize("ends", ["caught up", "gone"])
async def test_who_gave_the_whole_answer_learns_when_a_slow_client_has_taken_it(ends: str) -> None:
    told = []

    async def gives(client: Client) -> None:
        wire.protocol.pause_writing()
        client.whole(200, b"", b"x" * (JOINED_BYTES + 1))
        await client.drained()
        told.append("drained")

    wire = Wire(gives)
    await wire.send(GET)
    assert (wire.statuses, told) == ([200], [])
    if ends == "gone":
        wire.lose()
    else:
        wire.protocol.resume_writing()
    await settled()
    assert told == ["drained"]
    assert not wire.tasks


async def test_a_connection_that_is_accepted_at_shutdown_closes_after_its_answer() -> None:
    first = Wire()
    first.protocol.shutdown()
    late, silent = Wire(shared=first.shared), Wire(shared=first.shared)
    await late.send(GET)
    assert (late.statuses, late.closed) == ([200], True)
    assert b"connection: close" in late.answers[0][1]
    first.clock.advance(TIMES.linger_s + SWEEP_S)
    assert silent.closed


async def test_an_abort_of_a_connection_that_was_just_reset_is_no_error(caplog) -> None:
    class Reset(FakeTransport):
        def get_extra_info(self, name: str):
            return self

        def setsockopt(self, *option: object) -> None:
            raise OSError("it is not connected")

    async def aborts(client: Client) -> None:
        client.begin(200, b"")
        client.abort()

    wire = Wire(aborts)
    wire.transport = wire.protocol.transport = Reset()
    await wire.send(GET.replace(b"1.1", b"1.0"))
    assert wire.transport.aborted
    assert not caplog.records


async def test_a_connection_to_an_engine_that_fails_does_not_end_the_sweep_of_all() -> None:
    class Broken:
        @property
        def idle(self) -> bool:
            raise ValueError("a mistake")

    upstream = LeanUpstream(lambda: "token")
    broken = Broken()
    upstream.opened(broken)
    first = upstream._sweeper
    with pytest.raises(ValueError, match="a mistake"):
        upstream._sweep()
    assert upstream._sweeper not in (first, None)
    first.cancel()
    upstream.closed(broken)
    await upstream.close()
