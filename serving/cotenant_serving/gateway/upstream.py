"""HTTP to the engines: the seam (`Upstream`, `Answer`), and what an answer means.

Two clients stand behind it, under the same tests: `upstream_lean` is the one that gateways use, `upstream_aiohttp`
the reference that shows what the lean one has to do.

What may be sent again: EngineUnreachableError always (the engine saw nothing). EngineLostError of `send` as long as
the client got nothing, because what an engine does has no effect beyond its answer; the engine may still be at it, so
the next attempt has an id of its own. That a pooled connection was closed by its engine just when it was used looks
no different: the same error, once for each such connection. Never after `send` returned an answer with status 200.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import quote

import msgspec

from cotenant_serving.contract import HEADER_REFUSED, Usage
from cotenant_serving.contract_gateway import EngineRow

CONNECT_S = 2.0
CANCEL_S = 0.8
IDLE_CONNECTION_S = 3.0
"""Far shorter than the engines' own keep-alive: a connection is not reused while its engine closes it."""
READ_BUFFER_BYTES = 64 * 1024
"""More than this (and one read) is not taken from an engine while nobody reads the answer."""
MAX_HEAD_BYTES = 64 * 1024
"""Of an answer: its status line and headers, those of 1xx answers before it included."""
MAX_ANSWER_BYTES = 64 << 20
LARGE_BODY_BYTES = 512 << 10
"""Longer bodies go out in pieces, so that they do not hold up the event loop."""
REQUESTS_PATH = "/v1/requests/"
_PATH_CHARS = "/:@!$&'()*+,;="
"""Beside letters, digits and `-._~`: what RFC 3986 lets stand as it is in a path."""


class EngineUnreachableError(Exception):
    """No connection could be made: the engine has not seen the request."""


class EngineLostError(Exception):
    """The connection broke; what the engine did with the request is unknown. The message quotes no answer."""


class Outgoing(msgspec.Struct, frozen=True):
    """What goes on to an engine of a client's request; of its headers only those that say how to read the body."""

    method: str
    path: str
    """Decoded, without a query: nothing in it ends the path or the line."""
    body: bytes
    headers: Mapping[str, str]


class Answer(Protocol):
    """An engine's answer from its first byte on. Header names are in lower case. Its body is taken once, by one."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def complete(self) -> bool:
        """All of it came, and its connection waits for another request: there is nothing to close."""

    def body(self) -> bytes:
        """As `read`, of one that is complete; without waiting."""

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises EngineLostError when it breaks off or is longer than `limit` bytes."""

    async def relay(self, put: Callable[[bytes], bool]) -> None:
        """Gives each piece of the body to `put` as it comes; returns at its end, or when `put` says False: enough.

        The lean client calls `put` in the very callback that read the piece: `put` must not wait. Raises
        EngineLostError when the body breaks off, and whatever `put` raises: the connection is then closed.
        """

    def pause(self) -> None:
        """Reads no more of the engine, for a client that is slow; what is on its way still comes."""

    def resume(self) -> None: ...

    async def close(self) -> None:
        """Gives the connection back if the body was read to its end, or ends within a second; else closes it."""


class Upstream(Protocol):
    """How requests get to engines. Who stops waiting for an answer has closed its connection."""

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> Answer:
        """Returns when the head of the answer is here; 1xx answers are not answers.

        Raises EngineUnreachableError, or EngineLostError when the connection broke before that. ValueError for a
        request whose headers or id cannot stand in a head.
        """

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        """Stops a running request; what it used, or None when the engine cannot tell. Never raises."""

    async def close(self) -> None: ...


ANSWERED = 200
"""The status of an answer for the client; every other one means something (`meaning`)."""


class Meaning(enum.Enum):
    """What the head of an engine's answer that is no answer for the client means for the request."""

    REFUSED = "refused"
    """4xx: the client's mistake, passed on unchanged."""
    BUSY = "busy"
    LOADING = "loading"
    DRAINING = "draining"
    MISDIRECTED = "misdirected"
    FOREIGN = "foreign"
    """It does not know the pool's token: another pool's engine has the address of one that is gone."""
    FAILED = "failed"


def meaning(status: int, refused: str) -> Meaning:
    """Of a status other than ANSWERED. `refused` is the header x-cotenant-refused, empty when absent. Pure."""
    if status == 421:
        return Meaning.MISDIRECTED
    if status == 503 and refused in ("busy", "loading", "draining"):
        return Meaning(refused)
    if status in (401, 403):
        return Meaning.FOREIGN
    if 400 <= status < 500:
        return Meaning.REFUSED
    return Meaning.FAILED


def refused_header(answer: Answer) -> str:
    return answer.headers.get(HEADER_REFUSED, "")


def host_and_port(row: EngineRow) -> str:
    """As it stands in URLs and in the header Host."""
    return f"[{row.host}]:{row.port}" if ":" in row.host else f"{row.host}:{row.port}"


def encoded_path(path: str) -> str:
    """A decoded path as it may stand in a request line: no space, no line break, no `?`, whatever was in it."""
    return quote(path, safe=_PATH_CHARS, errors="replace")


def for_head(what: str, value: str) -> str:
    """`value`, if it can stand in the head of a request: printable ASCII. Raises ValueError that names `what`.

    A line break in a header would begin another one, and two of them another request.
    """
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{what} has characters that cannot stand in a header: printable ASCII can")
    return value
