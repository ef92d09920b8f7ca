"""What follows an error in a stream is told, and is no other failure: some servers send `[DONE]` there."""

import pytest

from cotenant_loadtests.answers import HangUpError, StreamedAnswer
from cotenant_loadtests.checks import Finding
from cotenant_loadtests.planned import Planned

WORD = b'data: {"model":"m","choices":[{"delta":{"content":"word"}}]}\n\n'
ERROR = b'data: {"error":{"message":"x","code":"lost"}}\n\n'
DONE = b"data: [DONE]\n\n"


def found(*pieces: bytes) -> Finding:
    planned = Planned(id=0, at_s=0.0, stream="s", tenant="t", model="m", api="chat", streamed=True)
    answer = StreamedAnswer(planned, None)
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
