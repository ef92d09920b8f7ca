"""A client resets its connection while its request is worked on: uvloop tells it a moment after it can be felt."""

import asyncio
from types import SimpleNamespace
from typing import Any

from cotenant_serving.gateway.connections import taken
from cotenant_serving.gateway.framing import read_head
from cotenant_serving.gateway.page_calls import call_page
from cotenant_serving.gateway.request import Request


class ResetTransport(asyncio.Transport):
    """As uvloop's between a reset and `connection_lost`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return SimpleNamespace(getsockopt=self._no_descriptor)
        return self._no_descriptor()

    def _no_descriptor(self, *_: object) -> Any:
        raise ValueError("negative file descriptor")

    def write(self, data: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


class Answered:
    """A connection that would read its next request."""

    def __init__(self) -> None:
        self.shared = SimpleNamespace(date=b"")
        self.ending = False
        self.client_is_slow = False
        self.count = 0

    def answered(self, _: Request) -> None:
        self.count += 1


def request_of(connection: Any) -> Request:
    head = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    made = Request(connection, ResetTransport(), read_head(head, len(head)))
    made.complete()
    return made


def test_an_answer_to_it_goes_nowhere_without_an_error() -> None:
    for chunked, last in ((True, b""), (True, b"x"), (False, b"ab")):
        connection = Answered()
        request = request_of(connection)
        request.begin(200, b"", None if chunked else 2)
        if chunked:
            request.write(b"piece")
            request.write(b"piece")
        request.end(last)
        request.abort()
        assert connection.count == 0


async def test_a_page_is_called_for_it_all_the_same() -> None:
    scopes = []

    async def app(scope, receive, send) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    await call_page(app, request_of(Answered()), ResetTransport())

    assert scopes[0]["client"] is None


def test_it_has_taken_nothing() -> None:
    assert taken(ResetTransport()) == 0
