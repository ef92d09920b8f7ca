"""Engines as processes of their own, over real HTTP, with a fake conductor on loopback."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.builders.engine import MIB, RunningEngine, chat_body, echo_args, fake_conductor, running_engine, soonest_s
from tests.builders.up import until

from cotenant_serving.contract import EchoOptions, Heartbeat, Reason
from cotenant_serving.engine.echo import verify

pytestmark = pytest.mark.integration

SLOW = EchoOptions(tokens_per_second=20)


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[RunningEngine]:
    with fake_conductor() as conductor, running_engine(echo_args(), tmp_path, conductor) as engine:
        yield engine


@pytest.fixture
def slow_echo(tmp_path: Path) -> Iterator[RunningEngine]:
    args = echo_args(echo=SLOW, slots=2)
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor) as engine:
        yield engine


def test_a_stream_and_a_whole_answer_say_the_same_and_verify(echo: RunningEngine) -> None:
    whole = echo.chat("the quick brown fox", max_tokens=50)
    stream = echo.chat("the quick brown fox", max_tokens=50, stream=True)
    assert whole.text == stream.text
    assert verify(stream.text)
    assert whole.json["usage"]["completion_tokens"] == 50
    assert stream.body.endswith(
        b'\n\n: cotenant-usage {"prompt_tokens":4,"completion_tokens":50}\n\ndata: [DONE]\n\n'
    )


def test_text_completions_are_served_too(echo: RunningEngine) -> None:
    answer = echo.request("POST", "/v1/completions", {"model": "m", "prompt": "one two"}, {"x-request-id": "r1"})
    assert (answer.json["object"], answer.json["id"]) == ("text_completion", "cmpl-r1")
    assert verify(answer.text)


def test_many_streams_at_once_are_all_whole(echo: RunningEngine) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: echo.chat(f"n{index}", max_tokens=400, stream=True), range(8)))
    assert all(verify(answer.text) for answer in answers)
    assert len({answer.text for answer in answers}) == 8


def test_it_waits_for_the_lease_and_gives_it_back_when_ready(tmp_path: Path) -> None:
    with fake_conductor(grant=False) as conductor:
        args = echo_args(echo=EchoOptions(load_s=1.5))
        with running_engine(args, tmp_path, conductor, wait=False) as engine:
            conductor.wait_for(lambda beat: beat.state == "waiting")
            refused = engine.chat("hi")
            assert (refused.status, refused.headers["x-cotenant-refused"]) == (503, "loading")
            assert engine.request("GET", "/healthz", token="").status == 200
            conductor.grant = True
            conductor.wait_for(lambda beat: beat.state == "ready")
    assert conductor.states() == ["starting", "waiting", "loading", "ready"]
    loading = [beat for beat in conductor.heartbeats if beat.state == "loading"]
    assert all(beat.holds_lease for beat in loading)
    assert any(0 < beat.progress < 1 for beat in loading)
    assert not any(beat.holds_lease for beat in conductor.heartbeats if beat.state != "loading")


def test_heartbeats_carry_the_pools_token_and_memory_in_use(echo: RunningEngine) -> None:
    beat = echo.conductor.wait_for(lambda beat: beat.state == "ready" and beat.used_bytes > 0)
    assert echo.conductor.tokens == {"Bearer pool-token-of-the-tests"}
    assert 10 * MIB < beat.used_bytes < 500 * MIB
    assert beat.pid == echo.process.pid


def test_an_engine_that_is_full_says_busy(slow_echo: RunningEngine) -> None:
    body = chat_body("a b", max_tokens=200, stream=True)
    held = [slow_echo.send("POST", "/v1/chat/completions", body) for _ in range(2)]
    slow_echo.wait_until(lambda state: state.running == 2)
    refused = slow_echo.chat("a b")
    assert (refused.status, refused.headers["x-cotenant-refused"]) == (503, "busy")
    for connection in held:
        connection.close()


def test_a_request_for_another_instance_is_misdirected(echo: RunningEngine) -> None:
    refused = echo.chat("hi", headers={"x-cotenant-instance": "someone-else"})
    assert (refused.status, refused.headers["x-cotenant-refused"]) == (421, "misdirected")
    assert echo.chat("hi", headers={"x-cotenant-instance": echo.beat.instance}).status == 200


def test_a_cancel_stops_a_stream_and_says_what_it_used(slow_echo: RunningEngine) -> None:
    body = chat_body("a b", max_tokens=400, stream=True)
    connection = slow_echo.send("POST", "/v1/chat/completions", body, {"x-request-id": "r9"})
    response = connection.getresponse()
    response.readline()
    cancel = slow_echo.request("DELETE", "/v1/requests/r9")
    rest = response.read()
    connection.close()
    assert cancel.status == 200
    assert 1 <= cancel.json["completion_tokens"] < 400
    assert b"cancelled" in rest
    assert b"[DONE]" not in rest
    assert slow_echo.wait_until(lambda state: state.running == 0)


def test_a_client_that_leaves_frees_its_slot_within_a_second(slow_echo: RunningEngine) -> None:
    def freed_after_s() -> float:
        connection = slow_echo.send("POST", "/v1/chat/completions", chat_body("a b", max_tokens=400, stream=True))
        connection.getresponse().readline()
        return slow_echo.freed_after_s(connection)

    assert soonest_s(freed_after_s, enough_s=1.0) <= 1.0


def test_a_client_that_leaves_before_a_whole_answer_frees_its_slot_too(slow_echo: RunningEngine) -> None:
    def freed_after_s() -> float:
        connection = slow_echo.send("POST", "/v1/chat/completions", chat_body("a b", max_tokens=400))
        slow_echo.wait_until(lambda state: state.running == 1)
        return slow_echo.freed_after_s(connection)

    assert soonest_s(freed_after_s, enough_s=1.0) <= 1.0


def test_draining_completes_what_runs_and_takes_no_more(slow_echo: RunningEngine) -> None:
    connection = slow_echo.send("POST", "/v1/chat/completions", chat_body("a b", max_tokens=100, stream=True))
    response = connection.getresponse()
    response.readline()
    slow_echo.process.send_signal(signal.SIGTERM)
    slow_echo.wait_until(lambda state: state.state == "draining")
    refused = slow_echo.chat("hi")
    assert (refused.status, refused.headers["x-cotenant-refused"]) == (503, "draining")
    assert response.read().endswith(b"data: [DONE]\n\n")
    connection.close()
    assert slow_echo.process.wait(timeout=60) == 0
    assert slow_echo.conductor.states()[-1] == "draining"


def test_an_engine_that_exceeds_its_share_is_ended_and_says_why(tmp_path: Path) -> None:
    args = echo_args(share_bytes=200 * MIB, log_dir=str(tmp_path / "logs"))
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor) as engine:
        assert engine.chat(f"!allocate {50 * MIB}").status == 200
        connection = engine.send("POST", "/v1/chat/completions", chat_body(f"!allocate {300 * MIB}"))
        assert engine.process.wait(timeout=60) == -signal.SIGKILL
        connection.close()
        beat = conductor.wait_for(lambda beat: beat.state == "failed")
    assert beat.reason is Reason.MEMORY_EXCEEDED
    assert str(200 * MIB) in beat.message
    cause = msgspec.json.decode((tmp_path / "logs" / f"{args.app}.cause.json").read_bytes(), type=Heartbeat)
    assert (cause.reason, cause.message) == (beat.reason, beat.message)


def test_an_engine_that_allocates_too_much_while_it_loads_is_ended(tmp_path: Path) -> None:
    args = echo_args(share_bytes=200 * MIB, echo=EchoOptions(allocate_bytes=400 * MIB, load_s=0.1))
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor, wait=False) as engine:
        assert engine.process.wait(timeout=60) == -signal.SIGKILL
        assert conductor.wait_for(lambda beat: beat.state == "failed").reason is Reason.MEMORY_EXCEEDED


def test_cuda_that_is_not_there_is_an_error_and_no_fallback(tmp_path: Path) -> None:
    args = echo_args(device="cuda", device_index=99, log_dir=str(tmp_path))
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor, wait=False) as engine:
        assert engine.process.wait(timeout=60) == 1
        beat = conductor.wait_for(lambda beat: beat.state == "failed")
        assert beat.reason is Reason.NO_CUDA_DEVICE
        assert "NVML" in beat.message
        assert "NoCudaDevice" in engine.log.read_text()
    assert "waiting" not in conductor.states()


def test_a_conductor_that_comes_late_is_enough(tmp_path: Path) -> None:
    with fake_conductor(grant=False) as conductor, running_engine(echo_args(), tmp_path, conductor, wait=False):
        first = conductor.wait_for(lambda beat: beat.state == "waiting")
        until(lambda: sum(beat.state == "waiting" for beat in conductor.heartbeats) >= 2, "it asks again")
        conductor.grant = True
        ready = conductor.wait_for(lambda beat: beat.state == "ready")
    assert first.instance == ready.instance


def test_no_secret_is_in_the_process_list_the_state_or_the_output(echo: RunningEngine) -> None:
    command_line = Path(f"/proc/{echo.process.pid}/cmdline").read_bytes()
    state = json.dumps(msgspec.to_builtins(echo.state()))
    assert b"pool-token" not in command_line
    assert "pool-token" not in state
    assert "pool-token" not in echo.log.read_text()
