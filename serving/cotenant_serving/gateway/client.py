"""The client of one request to an engine's route, as the server's protocol shows it to the app.

Routes that go to engines do not speak ASGI: a message, an awaitable and a turn of the event loop for each piece of a
stream cost more than the piece itself. Nothing here waits but the two coroutines; the protocol implements it.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from cotenant_serving.gateway.errors import error

Callback = Callable[[], None]


class ClientGoneError(Exception):
    """The client left before its body was complete."""


class Client(Protocol):
    """One request and its answer. An answer to a client that is gone goes nowhere, without an error."""

    method: str
    path: str
    """Decoded, without the query."""
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case; exactly one Host; a single Content-Length at most; nothing that was not understood."""
    like: object
    """Requests of which this is the same, and not None, have the same headers but for the length of their bodies."""
    gone: bool
    """The connection is lost."""
    known: Any
    """Whatever the app keeps with the connection from one request to the next; None at first."""
    keep_alive: bool
    """Set it to False before `begin`, and the connection closes after this answer."""

    def take_body(self) -> bytes | None:
        """The whole body if all of it is here and none was taken; None: ask `body_part`."""

    def small_body(self, most: int) -> bytes | None:
        """The body if all of it is here in one piece of at most `most` bytes; it is not taken."""

    async def body_part(self) -> bytes:
        """The next piece of the body as it comes; empty at its end.

        Raises ClientGoneError, or TimeoutError when the body takes longer than a client may (`connections.Times`).
        """

    def belongs_to(self, tenant: str) -> bool:
        """Counts the connection for the tenant whose key it showed. False when that one has its cap of them."""

    def watch(self, gone: Callback, pause: Callback, resume: Callback) -> None:
        """`gone`: once, when the connection is lost before the answer's end (at once if it is already).

        `pause`: the client takes less than it is sent; `resume`: it has caught up. Both only while an answer runs.
        """

    def begin(self, status: int, fields: bytes, length: int | None = None) -> None:
        """The head of an answer; goes out with the first piece. `fields`: header lines, each with its CRLF.

        `length`: bytes of the body; None: chunked. The protocol adds the framing and `connection: close`.
        """

    def write(self, chunk: bytes) -> None:
        """A piece of the answer. Never waits: who writes much asks `drained` in between."""

    def end(self, last: bytes = b"") -> None:
        """The end of the answer, after a last piece. What is left of the request's body is thrown away."""

    def whole(self, status: int, fields: bytes, body: bytes) -> None:
        """`begin` and `end` of an answer that is complete."""

    def carry_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what answers the request from now on, as if the app had begun with it."""

    def abort(self) -> None:
        """Closes the connection without an end: what was sent must not look complete."""

    async def drained(self) -> None:
        """Returns when the client has taken most of what it was sent, or is gone; also after the end."""


def claim(client: Client, tenant: str) -> None:
    """Raises RequestError (429) when the tenant has its cap of connections; this one closes then."""
    if not client.belongs_to(tenant):
        client.keep_alive = False
        raise error("too_many_connections", retry_after_s=1)
