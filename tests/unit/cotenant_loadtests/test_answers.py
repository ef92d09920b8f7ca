"""Answers are judged alike however their bytes are cut, and each wrong one is called what it is."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.loadtest_worker import chat
from tests.builders.reference_answers import FAULTS, STREAM_FAULTS, Asked, read_request, render_stream, render_whole

from cotenant_loadtests.answers import HangUpError, read_answer
from cotenant_loadtests.bodies import render, request_path
from cotenant_loadtests.checks import Finding, echo_answer
from cotenant_loadtests.planned import Planned

BODY_FAULTS = [kind for kind in FAULTS if not kind.isdigit() and kind not in ("redirect", "cut", "reset")]


def asked(planned: Planned) -> Asked:
    return read_request(request_path(planned), render(planned))


def body_of(planned: Planned, fault: str | None = None) -> bytes:
    """Of the reference server's answer, without its framing."""
    if not planned.streamed:
        return render_whole(asked(planned), fault, b"r").split(b"\r\n\r\n", 1)[1]
    rest = b"".join(render_stream(asked(planned), fault, b"r")).split(b"\r\n\r\n", 1)[1]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def judge(planned: Planned, pieces: list[bytes], status: int = 200) -> tuple[Finding, list[int]]:
    """(finding, number of the piece that brought each event with text)"""
    expected = echo_answer(planned) if planned.check == "echo" else None
    answer = read_answer(planned, status, expected, b"")
    try:
        for number, piece in enumerate(pieces):
            answer.take(piece, number)
        return answer.finish(len(pieces)), list(answer.text_times)
    except HangUpError as ended:
        return ended.finding, list(answer.text_times)


def events_of(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("fault", [None, *BODY_FAULTS])
def test_a_streamed_answer_is_called_what_it_is(api: str, fault: str | None) -> None:
    planned = chat(1, api=api)
    finding, _ = judge(planned, events_of(body_of(planned, fault)))
    assert finding.outcome == (FAULTS[fault] if fault else "ok")


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("fault", [None, *(kind for kind in BODY_FAULTS if kind not in STREAM_FAULTS)])
def test_a_whole_answer_is_called_what_it_is(api: str, fault: str | None) -> None:
    planned = chat(1, api=api, streamed=False)
    body = body_of(planned, fault)
    for cut in range(0, len(body), 7):
        finding, times = judge(planned, [body[:cut], body[cut:]])
        assert finding.outcome == (FAULTS[fault] if fault else "ok")
        assert times == [2]


@given(st.sampled_from([None, *BODY_FAULTS]), st.lists(st.integers(0, 3000), max_size=20))
def test_cuts_change_neither_the_finding_nor_the_count(fault: str | None, places: list[int]) -> None:
    planned = chat(1)
    body = body_of(planned, fault)
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    finding, times = judge(planned, pieces)
    expected, expected_times = judge(planned, events_of(body))
    assert (finding, len(times)) == (expected, len(expected_times))
    assert times == sorted(times)


def test_every_place_to_cut_an_answer_gives_the_same() -> None:
    planned = chat(1, max_tokens=3)
    body = body_of(planned)
    assert {judge(planned, [body[:cut], body[cut:]])[0] for cut in range(len(body))} == {Finding("ok")}


def test_a_token_counts_when_its_event_is_whole() -> None:
    planned = chat(1, max_tokens=2)
    first, *rest = events_of(body_of(planned))
    _, times = judge(planned, [first[:-1], first[-1:], *rest])
    assert times == [1, 2]


def test_an_event_without_text_is_no_token() -> None:
    planned = chat(1, max_tokens=2)
    role = b'data: {"model":"echo","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    finding, times = judge(planned, [role, *events_of(body_of(planned))])
    assert (finding, times) == (Finding("ok"), [1, 2])


def test_thinking_aloud_is_text() -> None:
    planned = chat(1, check="shape", include_usage=False)
    thought = b'data: {"model":"echo","choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n'
    assert judge(planned, [thought, b"data: [DONE]\n\n"]) == (Finding("ok"), [0])


def test_a_whole_echo_says_the_very_name_that_was_asked() -> None:
    echo, other = (chat(1, model="team/echo", streamed=False, check=check) for check in ("echo", "shape"))
    body = body_of(echo).replace(b'"team/echo"', b'"echo"')
    assert judge(echo, [body])[0] == Finding("wrong_model", "echo")
    assert judge(other, [body])[0] == Finding("ok")


def test_cancelling_ends_with_the_token_it_waited_for() -> None:
    planned = chat(1, cancel_after_tokens=2)
    assert judge(planned, events_of(body_of(planned))) == (Finding("cancelled"), [0, 1])


def test_a_cancelled_answer_must_have_begun_right() -> None:
    planned = chat(1, cancel_after_tokens=2)
    finding, _ = judge(planned, events_of(body_of(planned, "wrong_word")))
    assert finding == Finding("wrong_answer", "token 1")


def test_usage_that_was_asked_for_must_come() -> None:
    planned, without = chat(1), chat(1, include_usage=False)
    events = events_of(body_of(without))
    assert judge(without, events)[0] == Finding("ok")
    assert judge(planned, events)[0] == Finding("wrong_usage", "missing")


@pytest.mark.parametrize("fault", [None, *BODY_FAULTS])
def test_who_wants_no_checks_gets_none(fault: str | None) -> None:
    planned = chat(1, check="none")
    finding, times = judge(planned, events_of(body_of(planned, fault)))
    assert finding == Finding("ok")
    assert times or fault == "empty"


def test_an_error_is_known_by_its_status_and_told_by_its_code() -> None:
    body = b'{"error":{"message":"secret words","code":"too_many"}}'
    assert judge(chat(1), [body[:9], body[9:]], status=429)[0] == Finding("rate_limited", "too_many")
    assert judge(chat(1), [b"x" * 70_000] * 3, status=500)[0] == Finding("http_error", "")
