"""Heartbeats keep trying, report changes, and pass the start lease on."""

import threading
from collections.abc import Callable

import pytest
from tests.builders.engine import echo_args, fake_conductor

from cotenant_serving.contract import Heartbeat, HeartbeatReply, Reason
from cotenant_serving.engine.heartbeat import (
    ConductorClient,
    ConductorUnreachableError,
    HeartbeatThread,
    post_reliably,
)
from cotenant_serving.engine.status import EngineStatus


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def status(clock: Callable[[], float] = Clock()) -> EngineStatus:  # noqa: B008
    return EngineStatus(echo_args(), instance="i", host="127.0.0.1", port=8800, clock=clock)


def fails_times(count: int, posted: list[Heartbeat]) -> Callable[[Heartbeat], HeartbeatReply]:
    def post(heartbeat: Heartbeat) -> HeartbeatReply:
        posted.append(heartbeat)
        if len(posted) <= count:
            raise ConductorUnreachableError("refused")
        return HeartbeatReply(lease=True)

    return post


def test_a_last_word_is_repeated_until_it_is_heard() -> None:
    clock, posted = Clock(), []
    assert post_reliably(fails_times(3, posted), status().snapshot(), for_s=5, clock=clock, sleep=clock.sleep)
    assert len(posted) == 4


def test_a_last_word_is_given_up_in_time() -> None:
    clock, posted = Clock(), []
    assert not post_reliably(fails_times(999, posted), status().snapshot(), for_s=5, clock=clock, sleep=clock.sleep)
    assert clock.now_s <= 5
    assert len(posted) > 10


def test_a_lease_counts_only_while_waiting() -> None:
    granted: list[bool] = []
    engine = status()
    beats = HeartbeatThread(engine, fails_times(0, []), lambda: granted.append(True))
    beats.beat()
    assert granted == []
    engine.waiting()
    beats.beat()
    assert granted == [True]


def test_an_unreachable_conductor_does_not_end_the_heartbeats() -> None:
    posted: list[Heartbeat] = []
    granted: list[bool] = []
    engine = status()
    engine.waiting()
    beats = HeartbeatThread(engine, fails_times(2, posted), lambda: granted.append(True))
    for _ in range(3):
        beats.beat()
    assert granted == [True]


def test_no_exception_whatsoever_ends_the_heartbeats() -> None:
    posted: list[Heartbeat] = []
    lively = threading.Event()

    def post(heartbeat: Heartbeat) -> HeartbeatReply:
        posted.append(heartbeat)
        if len(posted) == 1:
            raise ValueError("a header with a line break")
        lively.set()
        return HeartbeatReply()

    thread = HeartbeatThread(status(), post, lambda: None)
    thread.start()
    assert lively.wait(10)
    thread.stop()


def test_a_change_of_state_is_reported_and_progress_is_not_a_change() -> None:
    engine = status()
    engine.progress("importing torch", 0.2)
    assert not engine.changed.is_set()
    engine.loading()
    assert engine.changed.is_set()


def test_the_lease_is_held_exactly_while_loading() -> None:
    clock = Clock()
    engine = status(clock)
    held = [engine.snapshot().holds_lease]
    for step in (engine.waiting, engine.loading, engine.ready, engine.draining):
        clock.sleep(1)
        step()
        held.append(engine.snapshot().holds_lease)
    assert held == [False, False, True, False, False]
    assert engine.snapshot().load_s == 3


def test_the_first_failure_stands() -> None:
    engine = status()
    engine.failed(Reason.MEMORY_EXCEEDED, "first")
    engine.failed(Reason.LOAD_FAILED, "second")
    assert engine.snapshot().reason is Reason.MEMORY_EXCEEDED


def test_a_heartbeat_carries_the_token_and_reads_the_reply() -> None:
    with fake_conductor() as conductor:
        engine = status()
        engine.waiting()
        assert ConductorClient(conductor.url, lambda: "secret").post(engine.snapshot()).lease
        assert conductor.tokens == {"Bearer secret"}
        assert conductor.states() == ["waiting"]


def test_a_conductor_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(ConductorUnreachableError):
        ConductorClient("http://127.0.0.1:1", lambda: "t").post(status().snapshot())


def test_a_conductor_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        ConductorClient("conductor:8000", lambda: "t")
