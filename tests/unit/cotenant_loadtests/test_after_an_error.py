"""What follows an error in a stream is told, and is no other failure: some servers send `[DONE]` there."""

import pytest

from cotenant_loadtests.answers import HangUpError, StreamedAnswer
from cotenant_loadtests.checks import EchoAnswer, Finding
from cotenant_loadtests.planned import Planned

WORD = b'data: {"model":"m","choices":[{"delta":{"content":"word"}}]}\n\n'
ERROR = b'data: {"error":{"message":"x","code":"lost"}}\n\n'
DONE = b"data: [DONE]\n\n"


def found(*pieces: bytes, expected: EchoAnswer | None = None) -> Finding:
    planned = Planned(id=0, at_s=0.0, stream="s", tenant="t", model="m", api="chat", streamed=True)
    answer = StreamedAnswer(planned, expected)
    try:
        for piece in pieces:
            answer.take(piece, 1)
    except HangUpError as hung_up:
        return hung_up.finding
    return answer.finish(2)


@pytest.mark.parametrize(
    ("pieces", "detail"),
    [
        ((WORD, ERROR), "lost"),
        ((ERROR,), "lost"),
        ((WORD, ERROR, b": a comment\n\n"), "lost"),
        ((WORD, ERROR, DONE), "lost, then [DONE]"),
        ((WORD + ERROR + DONE,), "lost, then [DONE]"),
        ((WORD, ERROR, WORD), "lost, then more"),
        ((WORD, ERROR, ERROR), "lost, then more"),
        ((WORD, ERROR, b"data: {]\n\n"), "lost, then more"),
    ],
)
def test_an_error_is_one_whatever_follows_and_what_follows_is_told(pieces: tuple[bytes, ...], detail: str) -> None:
    assert found(*pieces) == Finding("error_event", detail)


LEFTOVERS = [b": bye\n\n", b": bye", b"event: ping\n\n", b"id: 7\n"]


@pytest.mark.parametrize("rest", LEFTOVERS)
def test_of_an_echo_nothing_at_all_may_follow_the_end(rest: bytes) -> None:
    """Of other servers comments may."""
    echo = EchoAnswer("word", 1)
    assert found(WORD, DONE, rest, expected=echo) == Finding("after_done")
    assert found(WORD, DONE[:-1] + rest, expected=echo) == Finding("after_done")
    assert found(WORD, ERROR, rest, expected=echo) == Finding("error_event", "lost, then more")
    assert found(WORD, DONE, rest) == Finding("ok")
    assert found(WORD, ERROR, rest) == Finding("error_event", "lost")


def test_of_an_echo_comments_may_come_before_the_end() -> None:
    echo = EchoAnswer("word", 1)
    assert found(b": waiting\n\n", WORD, b": waiting\n\n" + DONE, b"\n", expected=echo) == Finding("ok")
    assert found(b": waiting\n\n", WORD, b": waiting\n\n", ERROR, expected=echo) == Finding("error_event", "lost")


def test_what_the_gateway_must_strip_is_a_failure_of_an_echo() -> None:
    internal = b': cotenant-usage {"prompt_tokens":1,"completion_tokens":1}\n\n'
    wrong = Finding("bad_event", "internal_comment")
    assert found(WORD, internal, DONE, expected=EchoAnswer("word", 1)) == wrong
    assert found(WORD + internal + DONE, expected=EchoAnswer("word", 1)) == wrong
    assert found(WORD, internal, DONE) == Finding("ok")


def test_an_echo_says_the_very_name_that_was_asked() -> None:
    other = WORD.replace(b'"m"', b'"team/m"')
    assert found(other, DONE, expected=EchoAnswer("word", 1)) == Finding("wrong_model", "team/m")
    assert found(other, DONE) == Finding("ok")
