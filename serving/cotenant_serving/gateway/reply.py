"""The answer to one client: begun at most once, ended exactly once, whatever goes wrong in between."""

import re
from collections.abc import Mapping

from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.errors import body_for
from cotenant_serving.openai_api import RequestError, error_event

EVENTS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_JSON = b"content-type: application/json\r\n"
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


class Reply:
    """`status` is what the client got (0 before the start). What is sent to a client that is gone goes nowhere."""

    __slots__ = ("_client", "_fields", "_path", "finished", "request_id", "status")

    def __init__(self, client: Client, request_id: str) -> None:
        self._client = client
        self._path = client.path
        """Decides about the shape of errors."""
        self.request_id = request_id
        self.status = 0
        self.finished = False
        self._fields = b"x-request-id: %b\r\n" % request_id.encode()

    def echo(self, given: bytes) -> None:
        """The client's own request id, when it is `harmless`."""
        if harmless(given):
            self._fields += b"x-client-request-id: %b\r\n" % given

    def add(self, fields: bytes) -> None:
        """Header lines of whatever answer begins, each with its CRLF."""
        self._fields += fields

    def whole(self, status: int, body: bytes, fields: bytes) -> None:
        """A complete answer; `fields` as for `add`. A HEAD never gets here."""
        assert not self.status, "an answer begins once"
        self.status = status
        self.finished = True
        self._client.whole(status, self._fields + fields, body)

    def start_stream(self, fields: bytes = EVENTS) -> None:
        """Does nothing when waiting comments have begun the stream already."""
        if not self.status:
            self.status = 200
            self._client.begin(200, self._fields + fields)

    def put(self, chunk: bytes) -> None:
        """The client's `pause` tells when it is slow."""
        if chunk:
            self._client.write(chunk)

    def finish(self, last: bytes = b"") -> None:
        self.finished = True
        self._client.end(last)

    def fail(self, problem: RequestError) -> None:
        """The error as the whole answer, or as the last event of a stream; no `[DONE]` follows."""
        if self.finished:
            return
        if self.status:
            self.finish(error_event(problem.message, type_=problem.type, code=problem.code))
            return
        self.whole(problem.status, body_for(problem, self._path), fields_of(problem.headers) + _JSON)


def fields_of(headers: Mapping[str, str]) -> bytes:
    """Header lines. A value that would end its line, or cannot be sent, is left out with its name."""
    return b"".join(
        f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items() if not _UNSAFE.search(value)
    )


def harmless(request_id: bytes) -> bool:
    """Whether a client's request id may be repeated to it; it is never used for anything else."""
    return _CLIENT_ID.fullmatch(request_id) is not None
