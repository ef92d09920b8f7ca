"""One keep-alive connection for generated requests: each is answered in time and by the letter, or the test fails."""

import socket

from tests.builders.generated_requests import GeneratedRequest
from tests.builders.strict_http import Answer, AnswerReader

DEADLINE_S = 60.0
"""Only ends a case that would otherwise never end."""


class SyncClient:
    """`answer` is called from one thread. Connects again after the gateway closes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def answer(self, request: GeneratedRequest) -> Answer:
        """Raises TimeoutError, WrongError, or ConnectionError when there is no whole answer."""
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port), DEADLINE_S)
        try:
            self._connection.sendall(request.data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have been refused before its end; the answer is there
        reader = AnswerReader([request.method.encode()])
        try:
            self._read(reader)
            assert len(reader.answers) == 1, "two answers to one request"
            assert not reader.unfinished, f"more than an answer: {reader.unfinished!r}"
        except BaseException:
            self.close()
            raise
        answer = reader.answers[0]
        if answer.last:
            self.close()
        return answer

    def _read(self, reader: AnswerReader) -> None:
        assert self._connection is not None
        while not reader.answers:
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionError(f"closed after {reader.unfinished!r}")
            reader.feed(data)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
