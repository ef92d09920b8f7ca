"""Which bytes are a request: what llhttp leaves to who uses it, and bounds on what it would take without end. Pure.

A request that two readers could take for different ones is refused, never mended (RFC 9112). llhttp is strict about
line ends, folded lines, names, control characters and lengths; here are the request line, Host, codings, what claims
to be from a proxy in front, and the chunked coding, of which the end must be known to the byte.

What becomes of a stream of bytes does not depend on how it is cut into pieces: a head that is not complete yet is
refused only for what would be refused in the complete one, too.
"""

import contextlib
import re
from collections import Counter
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from cotenant_serving.gateway.errors import body_for, error
from cotenant_serving.gateway.request_ids import new_request_id
from cotenant_serving.openai_api import RequestError

Headers = list[tuple[bytes, bytes]]

MAX_LINE_BYTES = 8 << 10
MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
MAX_CHUNK_LINE_BYTES = 256
MAX_CHUNK_EXTRA_BYTES = 16 << 10
"""Of the extensions and trailers of one body; nobody reads them."""
MAX_LENGTH_DIGITS = 18
METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
CHUNKED = -1
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PATH = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*"
_LINE = re.compile(rb"([A-Z]+) (" + _PATH + rb")(?:\?([!\"$-~]*))? HTTP/1\.([01])")
_ANY_LINE = re.compile(rb"(" + _TOKEN + rb") [^ ]+ HTTP/1\.[01]")
_TOKEN_STARTS = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_BARE = re.compile(rb"\r[^\n]|(?<!\r)\n")
_VALUES = {
    b"host": re.compile(rb"(?:[A-Za-z0-9._\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"),
    b"content-length": re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS),
    b"transfer-encoding": re.compile(rb"(?i:chunked)"),
    b"expect": re.compile(rb"(?i:100-continue)"),
}
_CLAIMS = re.compile(
    rb"forwarded|via|true-client-ip|cf-connecting-ip|x-(?:forwarded|real|client|original|rewrite|cotenant|gateway)-.*"
)
_ONCE = frozenset({*_VALUES, b"content-type"})
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[ !#-\[\]-~]*"))?)*')
_TRAILER = re.compile(_TOKEN + rb":[\t -~\x80-\xff]*")

_STARTS: dict[bytes, "Start"] = {}
_LINES: dict[bytes, tuple[bytes, bytes]] = {}
"""Request lines and lines of headers that were understood before: most come again with the next request."""
MAX_KNOWN = 4096
MAX_KNOWN_BYTES = 256
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_HEADS: "dict[bytes, Head]" = {}
"""Whole heads that were understood before, by their bytes without the digits of the length: clients repeat theirs."""
MAX_KNOWN_HEADS = 512
MAX_KNOWN_HEAD_BYTES = 1024


class Start(NamedTuple):
    """A request line."""

    method: str
    path: str
    """Decoded."""
    raw_path: bytes
    query: bytes
    old: bool
    """HTTP/1.0."""


class Head(msgspec.Struct):
    """A request without its body."""

    start: Start
    headers: Headers
    """Names in lower case."""
    length: int
    """Bytes of the body, or CHUNKED."""
    keep_alive: bool
    """The client lets the connection stay."""
    waits_for_100: bool
    length_at: int
    """Which of the headers says it; -1: none."""
    like: "Head | None" = None
    """One that was read before and is the same but for the length of its body."""


def read_head(data: bytes, size: int) -> Head:
    """The complete head in the first `size` bytes. Raises RequestError.

    Of a head that is known but for the digits of its length, those are all that is left to read.
    """
    at = data.find(_LENGTHS[0], 0, size)
    if at < 0:
        at = data.find(_LENGTHS[1], 0, size)
    if at < 0 or size > MAX_KNOWN_HEAD_BYTES:
        return _read_lines(data, size)
    at += len(_LENGTHS[0])
    end = data.index(b"\r\n", at, size)
    digits, rest = data[at:end], data[:at] + data[end:size]
    known = _HEADS.get(rest)
    if known is None or len(digits) > MAX_LENGTH_DIGITS or not digits.isdigit():
        head = _read_lines(data, size)
        if len(_HEADS) >= MAX_KNOWN_HEADS:
            _HEADS.clear()
        _HEADS[rest] = head
        return head
    headers = known.headers.copy()
    headers[known.length_at] = (b"content-length", digits)
    return Head(known.start, headers, int(digits), known.keep_alive, known.waits_for_100, known.length_at, known)


def _read_lines(data: bytes, size: int) -> Head:
    lines = data[: size - 4].split(b"\r\n")
    known = _LINES.get
    try:
        start = _STARTS.get(lines[0]) or _learn_start(lines[0])
        if len(lines) > MAX_HEADERS + 1:
            raise error("headers_too_large")
        del lines[0]
        return _judged(start, [known(line) or _learn(line) for line in lines])
    except RequestError as problem:
        raise problem_of(data[:size]) or problem from None


def _judged(start: Start, headers: Headers) -> Head:
    fields = dict(headers)
    if len(fields) != len(headers):
        _check_repeated(headers)
    if b"" in fields:
        headers = [field for field in headers if field[0]]
    if b"host" not in fields:
        raise malformed("a missing Host")
    length, length_at = 0, -1
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        length_at = headers.index((b"content-length", fields[b"content-length"]))
    if b"transfer-encoding" in fields:
        if start.old or b"content-length" in fields:
            raise malformed("its Transfer-Encoding")
        length = CHUNKED
    asked = fields.get(b"connection")
    keep = not start.old and (asked is None or asked == b"keep-alive" or not _closes(headers))
    return Head(start, headers, length, keep, b"expect" in fields and not start.old, length_at)


def _learn_start(line: bytes) -> Start:
    """Raises RequestError."""
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in METHODS or len(line) > MAX_LINE_BYTES:
        raise malformed("its first line")
    method, path, query, minor = match.groups()
    start = Start(METHODS[method], decoded(path), path, query or b"", minor == b"0")
    if len(line) <= MAX_KNOWN_BYTES:
        if len(_STARTS) >= MAX_KNOWN:
            _STARTS.clear()
        _STARTS[line] = start
    return start


def decoded(path: bytes) -> str:
    """Raises RequestError for what is no text, or has control characters in it."""
    if b"%" not in path:
        return path.decode("ascii")
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise malformed("a path that is not UTF-8") from None
    if any(char < " " or char == "\x7f" for char in text):
        raise malformed("a control character in the path")
    return text


def problem_of(data: bytes, seen: int = 0) -> RequestError | None:
    """Why the start of a head can never become a request; None: it may.

    `seen`: bytes of it in which nothing was found before, and which need not be looked at again.
    """
    end = data.find(b"\r\n", 0, MAX_LINE_BYTES + 2)
    size = end if end >= 0 else len(data)
    if not 0 <= end <= seen - 2:
        if data and data[0] not in _TOKEN_STARTS:
            return malformed("its first line")
        if _BARE.search(data, max(0, seen - 1), min(size, MAX_LINE_BYTES)):
            return malformed("its first line")
        if size > MAX_LINE_BYTES + (data[size - 1 :] == b"\r"):  # whose line feed may be still to come
            return error("url_too_long")
        if end < 0:
            return None
        line = data[:end]
        known = _LINE.fullmatch(line)
        if known is None or known[1] not in METHODS:
            return _problem_of_line(line)
    if _BARE.search(data, max(size + 2, seen - 1), MAX_HEAD_BYTES):
        return malformed("a CR or LF alone")
    return error("headers_too_large") if len(data) > MAX_HEAD_BYTES else None


def _problem_of_line(line: bytes) -> RequestError:
    match = _ANY_LINE.fullmatch(line)
    if match is None:
        return malformed("its first line")
    if match[1] not in METHODS:
        return error("method_not_allowed", headers={"allow": "GET, HEAD, POST"})
    return malformed("its target; it must be a path")


def _learn(line: bytes) -> tuple[bytes, bytes]:
    """Name in lower case and value; both empty for a header that only a trusted proxy could send: there is none.

    Raises RequestError.
    """
    name, value = _read_field(line)
    valid = _VALUES.get(name)
    if valid is not None and not valid.fullmatch(value):
        raise error("expectation_failed") if name == b"expect" else malformed(f"its {name.decode().title()}")
    field = (b"", b"") if _CLAIMS.fullmatch(name.replace(b"_", b"-")) else (name, value)
    if len(line) <= MAX_KNOWN_BYTES:
        if len(_LINES) >= MAX_KNOWN:
            _LINES.clear()
        _LINES[line] = field
    return field


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    """As llhttp has it. A new parser costs next to nothing, and none can be left in the middle of something."""
    found = _Field()
    with contextlib.suppress(httptools.HttpParserUpgrade):  # nobody is
        try:
            httptools.HttpRequestParser(found).feed_data(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % line)
        except httptools.HttpParserError as problem:
            raise malformed(str(problem)) from None
    return found.name, found.value


class _Field:
    name = value = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools calls it."""
        self.name, self.value = name.lower(), value.strip(b" \t")


def _check_repeated(headers: Headers) -> None:
    for name, count in Counter(name for name, _ in headers).items():
        if count > 1 and name in _ONCE:
            raise malformed(f"two headers {name.decode()}")


def _closes(headers: Headers) -> bool:
    told = b",".join(value for name, value in headers if name == b"connection")
    return b"close" in [option.strip() for option in told.lower().split(b",")]


class Chunks:
    """Takes the chunked coding off one body as it comes, to the byte; extensions and trailers go nowhere."""

    __slots__ = ("_extra", "_held", "_left", "_next", "done")

    def __init__(self) -> None:
        self.done = False
        self._held = b""
        self._left = 0
        """Bytes of the chunk that are still to come."""
        self._next = self._size
        self._extra = 0

    def feed(self, data: bytes, at: int = 0) -> tuple[bytes, int]:
        """(what belongs to the body from `at` on, where that ends in `data`, once `done`). Raises RequestError."""
        parts, before = [], 0
        if self._held:
            before = len(self._held) - at
            data, at = self._held + data[at:], 0
        while not self.done:
            if self._left:
                parts.append(data[at : at + self._left])
                at += len(parts[-1])
                self._left -= len(parts[-1])
                if self._left:
                    break
                self._next = self._end_of_chunk
            end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                self._check_begun(data[at:])
                break
            self._next(data[at:end])
            at = end + 2
        self._held = b"" if self.done else data[at:]
        return b"".join(parts), at - before

    def _check_begun(self, line: bytes) -> None:
        ends_here = self._next == self._end_of_chunk and line not in (b"", b"\r")
        if len(line) >= MAX_CHUNK_LINE_BYTES or ends_here or _BARE.search(line):
            raise malformed("a chunk of its body")

    def _size(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise malformed("a chunk of its body")
        self._count(len(line) - len(match[1]))
        self._left = int(match[1], 16)
        self._next = self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line:
            raise malformed("a chunk of its body")
        self._next = self._size

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        if not _TRAILER.fullmatch(line):
            raise malformed("a trailer of its body")
        self._count(len(line))

    def _count(self, extra_bytes: int) -> None:
        self._extra += extra_bytes
        if self._extra > MAX_CHUNK_EXTRA_BYTES:
            raise malformed("the extensions or trailers of its body")


def malformed(what: str) -> RequestError:
    return error("malformed_request", f"The request is not valid HTTP/1.1: {what}.")


def path_of(start: bytes) -> str:
    """Of a request that may not be one; `start`: its first bytes."""
    line = start[:MAX_LINE_BYTES].partition(b"\r\n")[0].split(b" ")
    return line[1].partition(b"?")[0].decode("latin-1") if len(line) > 1 else ""


def refusal(problem: RequestError, path: str, *, silent: bool = False) -> bytes:
    """The whole of an answer that closes the connection; `silent`: without its body."""
    body = body_for(problem, path)
    headers = {**problem.headers, "x-request-id": new_request_id()}
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{told}connection: close\r\n\r\n"
    return STATUS_LINES[problem.status] + fields.encode() + (b"" if silent else body)
