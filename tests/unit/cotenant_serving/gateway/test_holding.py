"""When waiting for an engine makes no sense, and how errors look."""

import orjson
import pytest
from tests.builders.gateway import model_row

from cotenant_serving.contract import Reason
from cotenant_serving.gateway.errors import ERRORS, body_for, error, retry_after
from cotenant_serving.gateway.holding import held_too_long, refusal, unready


def judge(row, *, eta_s=None, remaining_s=60.0, unreachable_s=None):
    return refusal("search/echo", row, eta_s=eta_s, remaining_s=remaining_s, unreachable_s=unreachable_s)


@pytest.mark.parametrize(
    ("row", "times"),
    [
        (None, {}),
        (model_row("cold", reason=Reason.IDLE), {}),
        (model_row("waking", reason=Reason.WAKING), {"eta_s": 59}),
        (model_row("waiting", reason=Reason.NO_ROOM), {}),
        (model_row("ready"), {"eta_s": 999}),
        (None, {"unreachable_s": 4.9}),
        (model_row("ready"), {"unreachable_s": 29}),
        (model_row("waking", reason=Reason.WAKING), {"unreachable_s": 29}),
    ],
)
def test_what_may_still_come_is_waited_for(row, times):
    assert judge(row, **times) is None


@pytest.mark.parametrize(
    ("row", "times", "code", "wait"),
    [
        (model_row("failed", reason=Reason.LOAD_FAILED, message="no memory."), {}, "model_failed", "5"),
        (model_row("failed", reason=Reason.LOAD_FAILED), {"eta_s": 17.2}, "model_failed", "18"),
        (model_row("waking", reason=Reason.LOADING), {"eta_s": 61}, "model_loading", "61"),
        (model_row("waiting", reason=Reason.NO_ROOM), {"eta_s": 500}, "no_capacity", "120"),
        (None, {"unreachable_s": 5.0}, "conductor_unreachable", "5"),
        (model_row("cold", reason=Reason.IDLE), {"unreachable_s": 5.0}, "conductor_unreachable", "5"),
        (model_row("ready"), {"unreachable_s": 30.0}, "conductor_unreachable", "5"),
    ],
)
def test_what_cannot_come_in_time_is_refused_with_the_time_to_come_back(row, times, code, wait):
    problem = judge(row, **times)
    assert (problem.status, problem.code, problem.headers["retry-after"]) == (503, code, wait)


def test_the_reason_and_the_cause_stand_in_the_message():
    problem = judge(model_row("failed", reason=Reason.CORRUPT_WEIGHTS, message="a.safetensors is cut short."))
    assert "CorruptWeights: a.safetensors is cut short. " in problem.message


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (None, "no_capacity"),
        (model_row("ready"), "no_capacity"),
        (model_row("waiting", reason=Reason.NO_ROOM), "no_capacity"),
        (model_row("waking", reason=Reason.LOADING), "model_loading"),
        (model_row("failed", reason=Reason.ENGINE_DIED), "model_failed"),
    ],
)
def test_the_hold_deadline_says_what_was_missing(row, code):
    problem = held_too_long("search/echo", row, eta_s=None)
    assert (problem.status, problem.code) == (503, code)
    assert 1 <= int(problem.headers["retry-after"]) <= 120


@pytest.mark.parametrize(("seconds", "whole"), [(-3, 1), (0, 1), (0.2, 1), (1.1, 2), (1e9, 120), (float("inf"), 120)])
def test_retry_after_is_whole_seconds_from_1_to_120(seconds, whole):
    assert retry_after(seconds) == whole


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_openais_shape_and_a_next_step(name):
    problem = error(name)
    body = orjson.loads(problem.body())["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"]
    assert body["message"].endswith(ERRORS[name].step)
    assert 400 <= problem.status < 600


@pytest.mark.parametrize(
    ("row", "unreachable_s", "code"),
    [
        (model_row("cold", reason=Reason.IDLE), None, None),
        (model_row("cold", reason=Reason.IDLE), 4.9, None),
        (model_row("waking", reason=Reason.LOADING), None, None),
        (model_row("ready"), None, None),
        (model_row("cold", reason=Reason.IDLE), 5.0, "conductor_unreachable"),
        (None, None, "conductor_unreachable"),
        (model_row("waiting", reason=Reason.NO_ROOM), None, "no_capacity"),
        (model_row("failed", reason=Reason.LOAD_FAILED), None, "model_failed"),
    ],
)
def test_a_model_without_an_engine_is_ready_when_a_request_would_wake_one(row, unreachable_s, code):
    problem = unready("search/echo", row, eta_s=None, unreachable_s=unreachable_s)

    assert (problem and problem.code) == code


def test_errors_under_v2_are_one_string():
    problem = error("model_failed")

    for path in ("/v2", "/v2/models/a/infer"):
        assert orjson.loads(body_for(problem, path)) == {"error": problem.message}
    for path in ("/v1/models", "/v2x", "/healthz"):
        assert body_for(problem, path) == problem.body()
