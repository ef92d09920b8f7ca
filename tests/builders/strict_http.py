"""HTTP/1.1 by the letter (RFC 9112), both ways: what a client's bytes say, and what a server's answer. Pure.

Written for tests of hostile clients: it judges the gateway's reading of requests and shares no code with it. What the
RFC lets a client send is right here; a server may refuse it all the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\x20-\x7e]*)")
_FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_HOST = re.compile(rb"[A-Za-z0-9._\-\[\]:]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_OUR_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")


class WrongError(Exception):
    """Not HTTP/1.1 by the letter; says what."""


class UnfinishedError(Exception):
    """More bytes are needed to tell."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. Names of fields are in lower case."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]

    @property
    def path(self) -> bytes:
        """Decoded, without scheme, host and query."""
        target = self.target.decode("ascii")
        path = target if target.startswith("/") else urlsplit(target).path
        return unquote_to_bytes(path.partition("?")[0].partition("#")[0])


@dataclass(frozen=True, slots=True)
class ClientStream:
    """`requests` came whole and right, one after the other; `rest` is what comes after the last of them."""

    requests: tuple[Request, ...]
    rest: Literal["nothing", "unfinished", "wrong"]
    rest_method: bytes = b""
    """That of the request which the rest begins, if it has one."""

    @property
    def methods(self) -> list[bytes]:
        return [*(request.method for request in self.requests), self.rest_method]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: Fields
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]

    @property
    def last(self) -> bool:
        """It says that the connection closes after it."""
        return b"close" in [value.lower() for value in self.values(b"connection")]


def read_requests(data: bytes) -> ClientStream:
    found: list[Request] = []
    at = 0
    while True:
        while data.startswith(b"\r\n", at):
            at += 2
        if at == len(data):
            return ClientStream(tuple(found), "nothing")
        try:
            request, at = _request(data, at)
        except (UnfinishedError, WrongError) as problem:
            rest: Literal["unfinished", "wrong"] = "wrong" if isinstance(problem, WrongError) else "unfinished"
            return ClientStream(tuple(found), rest, data[at:].partition(b" ")[0])
        found.append(request)


class AnswerReader:
    """The answers of one connection, as their bytes come. `methods`: of the requests, in order; GET when unknown."""

    def __init__(self, methods: Sequence[bytes] = ()) -> None:
        self._methods = list(methods)
        self._data = b""
        self.answers: list[Answer] = []

    def feed(self, data: bytes) -> None:
        """Raises WrongError."""
        self._data += data
        while self._data:
            try:
                answer, end = self._answer()
            except UnfinishedError:
                return
            self._data = self._data[end:]
            if answer.status >= 200:  # interim ones answer nothing
                self.answers.append(answer)

    @property
    def unfinished(self) -> bytes:
        """The beginning of an answer that has not ended."""
        return self._data

    def _answer(self) -> tuple[Answer, int]:
        lines, at = _head(self._data, 0)
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise WrongError(f"status line {lines[0]!r}")
        status, fields = int(match[1]), _fields(lines[1:])
        number = len(self.answers)
        method = self._methods[number] if number < len(self._methods) else b"GET"
        if status < 200 or status in (204, 304) or method == b"HEAD":
            return Answer(status, fields, b""), at
        body, at = _body(self._data, at, fields, request=False)
        return Answer(status, fields, body), at


def _request(data: bytes, at: int) -> tuple[Request, int]:
    lines, at = _head(data, at)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise WrongError(f"request line {lines[0][:80]!r}")
    fields = _fields(lines[1:])
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (match[3] == b"1.1" and not hosts) or not all(map(_HOST.fullmatch, hosts)):
        raise WrongError(f"hosts {hosts}")
    if match[3] == b"1.0" and any(name == b"transfer-encoding" for name, _ in fields):
        raise WrongError("transfer-encoding in HTTP/1.0")
    body, at = _body(data, at, fields, request=True)
    return Request(match[1], match[2], fields, body), at


def _head(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Lines, and where the body begins."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise UnfinishedError
    return data[at:end].split(b"\r\n"), end + 4


def _fields(lines: Sequence[bytes]) -> Fields:
    found = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise WrongError(f"field line {line[:80]!r}")
        found.append((match[1].lower(), match[2]))
    return tuple(found)


def _body(data: bytes, at: int, fields: Fields, *, request: bool) -> tuple[bytes, int]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise WrongError(f"framing {lengths} {codings}")
    if codings:
        if codings[0].lower() != b"chunked":
            raise WrongError(f"transfer-encoding {codings[0]!r}")
        return _chunks(data, at, request=request)
    if not lengths:
        if request:
            return b"", at
        raise WrongError("an answer that says not where it ends")
    if re.fullmatch(rb"[0-9]{1,15}", lengths[0]) is None:
        raise WrongError(f"content-length {lengths[0]!r}")
    end = at + int(lengths[0])
    if end > len(data):
        raise UnfinishedError
    return data[at:end], end


def _chunks(data: bytes, at: int, *, request: bool) -> tuple[bytes, int]:
    parts = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            raise UnfinishedError
        match = (_CHUNK_SIZE if request else _OUR_CHUNK_SIZE).fullmatch(data[at:end])
        if match is None:
            raise WrongError(f"chunk size {data[at:end][:40]!r}")
        size = int(match[1] if request else match[0], 16)
        begin = end + 2
        if size == 0:
            return b"".join(parts), _trailer(data, begin, request=request)
        at = begin + size + 2
        if len(data) < at:
            raise UnfinishedError
        if data[at - 2 : at] != b"\r\n":
            raise WrongError("the end of a chunk")
        parts.append(data[begin : begin + size])


def _trailer(data: bytes, at: int, *, request: bool) -> int:
    if data[at : at + 2] == b"\r\n":
        return at + 2
    if len(data) < at + 2:
        raise UnfinishedError
    if not request:
        raise WrongError("a trailer")
    lines, end = _head(data, at)
    _fields(lines)
    return end
