"""Sends raw cases to a gateway and judges what came back, and what reached an engine."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from tests.builders.gateway_http import Seen
from tests.builders.raw_cases import RawCase
from tests.builders.raw_requests import KEY
from tests.builders.strict_http import Answer, AnswerReader, ClientStream, Request, WrongError

HANG_S = 60.0
"""Only ends a case that would otherwise never end."""
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    answers: list[Answer]
    unfinished: bytes
    closed: bool
    hung: bool
    wrong: str


class _Connection(asyncio.Protocol):
    """Keeps what comes, also when a reset follows it: a stream reader would forget it then."""

    def __init__(self, answers: AnswerReader) -> None:
        self.answers = answers
        self.closed = False
        self.wrong = ""
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.socket: socket.socket = transport.get_extra_info("socket")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self.answers.feed(data)
        except WrongError as problem:
            self.wrong = self.wrong or str(problem)
        self.news.set()

    def eof_received(self) -> None:
        self.closed = True
        self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.news.set()


async def send(case: RawCase, stream: ClientStream, port: int) -> Outcome:
    """Until the answers that are due are there, or until the gateway closes if it must."""
    answers, hung = AnswerReader(stream.methods), False
    try:
        async with asyncio.timeout(HANG_S):
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(lambda: _Connection(answers), "127.0.0.1", port)
            try:
                await _converse(case, stream, connection)
            finally:
                transport.abort()
    except TimeoutError:
        hung = True
    return Outcome(answers.answers, answers.unfinished, connection.closed, hung, connection.wrong)


async def _converse(case: RawCase, stream: ClientStream, connection: _Connection) -> None:
    transport = connection.transport
    for piece in case.pieces:
        if transport.is_closing():
            return
        transport.write(piece)
        await asyncio.sleep(0)
    if case.ending == "half_close" and not transport.is_closing():
        transport.write_eof()
    if case.ending == "reset":
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    if case.ending in ("close", "reset"):
        return
    while not (connection.closed or connection.wrong or _done(case, stream, connection.answers)):
        await connection.news.wait()
        connection.news.clear()


def _done(case: RawCase, stream: ClientStream, answers: AnswerReader) -> bool:
    must_close = stream.rest == "wrong" or case.ending == "half_close"
    return not must_close and len(answers.answers) >= len(stream.requests)


def faults(case: RawCase, stream: ClientStream, outcome: Outcome) -> list[str]:
    """What the gateway did wrong on this connection."""
    found = []
    if outcome.hung:
        found.append("hangs")
    if outcome.wrong:
        found.append(f"answers what is not HTTP: {outcome.wrong}")
    if outcome.unfinished and case.ending == "wait":
        found.append(f"leaves an answer unfinished: {outcome.unfinished[:80]!r}")
    whole = len(stream.requests)
    if len(outcome.answers) > whole + (stream.rest != "nothing"):
        found.append(f"gives {len(outcome.answers)} answers to {whole} whole requests")
    for number, answer in enumerate(outcome.answers):
        found += _faults_of(answer, last=number == len(outcome.answers) - 1)
        needs_no_body = stream.rest_method in (b"GET", b"HEAD") and answer.last
        if number >= whole and answer.status < 400 and not needs_no_body:
            found.append(f"answers {answer.status} to what is no whole request")
    early = outcome.closed and len(outcome.answers) < whole and case.ending == "wait"
    if early and not (outcome.answers and outcome.answers[-1].last):
        found.append(f"closes after {len(outcome.answers)} of {whole} answers")
    if case.pristine and any(answer.status in (400, 431) for answer in outcome.answers if answer.last):
        found.append("refuses the form of a right request")
    return found


def _faults_of(answer: Answer, *, last: bool) -> Iterable[str]:
    if answer.status >= 500:
        yield f"answers {answer.status}: {answer.body[:200]!r}"
    if answer.last and not last:
        yield "answers after it said that it closes"
    if answer.status >= 400 and not _has_a_shape(answer):
        yield f"answers {answer.status} without a shape: {answer.fields} {answer.body[:200]!r}"


def _has_a_shape(answer: Answer) -> bool:
    """OpenAI's, or that of the Open Inference Protocol; or the answer to a HEAD."""
    if not answer.body:
        return answer.values(b"content-length") != [b"0"]
    try:
        problem = orjson.loads(answer.body)["error"]
        return isinstance(problem, str) or {"message", "type", "param", "code"} == problem.keys()
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def forwardable(stream: ClientStream) -> Iterable[tuple[str, bytes]]:
    """(path, body) of what may reach an engine: whole requests before anything that is wrong, with the right key."""
    for request in stream.requests:
        if _has_key(request):
            yield request.path.decode("latin-1"), request.body


def _has_key(request: Request) -> bool:
    given = {value.partition(b" ")[2].strip() for value in request.values(b"authorization")}
    return {KEY} == given | set(request.values(b"x-api-key"))


def smuggled(seen: Iterable[Seen], allowed: Iterable[tuple[str, bytes]]) -> list[str]:
    """What reached an engine and no client had sent."""
    left = Counter(allowed)
    left.subtract(Counter((one.path, one.body) for one in seen))
    return [f"{path} {body[:300]!r}" for (path, body), count in left.items() if count < 0]
