"""What bytes are a request, and what others are told: raw bytes in, statuses and the connection's end out."""

import contextlib
import random

import httptools
import orjson
import pytest
from tests.builders.wire import Wire, pieces_of

from cotenant_serving.gateway import framing

SEED = 9112
GET = b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = GET + b"\r\n"


def line(text: bytes) -> bytes:
    return text + b"\r\nHost: x\r\n\r\n"


def host(value: bytes) -> bytes:
    return b"GET /v1/chat/completions HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


TAKEN = {
    "a request without a body": NEXT,
    "a body with a length": POST + b"Content-Length: 5\r\n\r\nhello",
    "an empty body": POST + b"content-length: 0\r\n\r\n",
    "a chunked body": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    "a chunked body with an extension, which nobody reads": CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n",
    "a chunked body with trailers, which nobody reads": CHUNKED + b"5\r\nhello\r\n0\r\nX-A: b\r\nHost: y\r\n\r\n",
    "a size with leading zeros": CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n",
    "a coding in capitals": POST + b"TRANSFER-ENCODING: Chunked \r\n\r\n0\r\n\r\n",
    "an empty line before the request": b"\r\n" + NEXT,
    "a query": line(b"GET /v1/chat/completions?a=b&c[]=%20d?e HTTP/1.1"),
    "an upgrade, as if it were not there": GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an upgrade with a body": POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "spaces around a value": GET + b"X-A: \t b \t\r\n\r\n",
    "a value in Latin-1": GET + b"X-A: \xe4\r\n\r\n",
    "a header without a value": GET + b"X-A:\r\n\r\n",
    "the same header twice where that may be": GET + b"Accept: a\r\nAccept: b\r\n\r\n",
    "a Host with a port": host(b"example.com:8080"),
    "a Host that is an address": host(b"[::1]:8080"),
    "a hundred headers": GET + b"".join(b"X-%d: a\r\n" % n for n in range(99)) + b"\r\n",
}

REFUSED = {
    "a length and a coding": (400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a coding and a length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
    "two lengths that differ": (400, POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhello"),
    "two equal lengths": (400, POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "a list of lengths": (400, POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    "a length with a sign": (400, POST + b"Content-Length: +5\r\n\r\nhello"),
    "a negative length": (400, POST + b"Content-Length: -5\r\n\r\nhello"),
    "a length in hex": (400, POST + b"Content-Length: 0x5\r\n\r\nhello"),
    "an empty length": (400, POST + b"Content-Length:\r\n\r\nhello"),
    "a length in other digits": (400, POST + b"Content-Length: \xb2\r\n\r\nhello"),
    "a length beyond all bounds": (400, POST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "another coding": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "another coding before chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked in two headers": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "almost chunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunked after a vertical tab": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "an empty coding": (400, POST + b"Transfer-Encoding:\r\n\r\n"),
    "a coding in HTTP/1.0": (400, POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a space before the colon": (400, POST + b"Content-Length : 5\r\n\r\nhello"),
    "a folded header": (400, GET + b"X-A: b\r\n c\r\n\r\n"),
    "a folded first header": (400, b"GET /v1/chat/completions HTTP/1.1\r\n Host: x\r\n\r\n"),
    "bare line feeds": (400, b"GET /v1/chat/completions HTTP/1.1\nHost: x\n\n"),
    "a bare line feed after a header": (400, GET + b"X-A: b\nX-C: d\r\n\r\n"),
    "a bare carriage return": (400, GET + b"X-A: b\rX-C: d\r\n\r\n"),
    "a NUL in a value": (400, GET + b"X-A: b\x00c\r\n\r\n"),
    "a control character in a value": (400, GET + b"X-A: b\x01c\r\n\r\n"),
    "a DEL in a value": (400, GET + b"X-A: b\x7fc\r\n\r\n"),
    "a name that is none": (400, GET + b'X"A: b\r\n\r\n'),
    "a header without a name": (400, GET + b": b\r\n\r\n"),
    "a header without a colon": (400, GET + b"X-A\r\n\r\n"),
    "no Host": (400, b"GET /v1/chat/completions HTTP/1.1\r\nX-A: b\r\n\r\n"),
    "no header at all": (400, b"GET /v1/chat/completions HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, GET + b"Host: x\r\n\r\n"),
    "two content types": (400, GET + b"Content-Type: a\r\ncontent-type: b\r\n\r\n"),
    **{
        f"a Host of {value.decode('latin-1')!r}": (400, host(value))
        for value in (
            b"",
            b"a/?x=",
            b"a b",
            b"a, b",
            b"x@y",
            b"@",
            b"x#",
            b"x\\y",
            b"a:b",
            b"a:",
            b"[::1",
            b"\xff",
            b"x:123456",
        )
    },
    "a whole URL as target": (400, line(b"GET http://x/v1/chat/completions HTTP/1.1")),
    "an authority as target": (400, line(b"GET x:80 HTTP/1.1")),
    "an asterisk as target": (400, line(b"OPTIONS * HTTP/1.1")),
    "a target that begins with an at sign": (400, line(b"GET @evil/v1/chat/completions HTTP/1.1")),
    "a target without its slash": (400, line(b"GET v1/chat/completions HTTP/1.1")),
    "a fragment": (400, line(b"GET /v1/chat/completions#x HTTP/1.1")),
    "a backslash": (400, line(b"GET /v1\\chat HTTP/1.1")),
    "a byte beyond ASCII in the path": (400, line(b"GET /v1/\xe4 HTTP/1.1")),
    "half an escape": (400, line(b"GET /v1/%4 HTTP/1.1")),
    "an escaped NUL": (400, line(b"GET /v1/a%00b HTTP/1.1")),
    "an escaped line end": (400, line(b"GET /v1/a%0d%0ab HTTP/1.1")),
    "an escape that is no UTF-8": (400, line(b"GET /v1/%ff HTTP/1.1")),
    "two spaces in the first line": (400, line(b"GET  /v1/chat/completions HTTP/1.1")),
    "a tab in the first line": (400, line(b"GET\t/v1/chat/completions HTTP/1.1")),
    "a space at its end": (400, line(b"GET /v1/chat/completions HTTP/1.1 ")),
    "HTTP/0.9": (400, b"GET /v1/chat/completions\r\n\r\n"),
    "HTTP/0.9 with its number": (400, line(b"GET /v1/chat/completions HTTP/0.9")),
    "HTTP/1.2": (400, line(b"GET /v1/chat/completions HTTP/1.2")),
    "HTTP/2 without its preface": (400, line(b"GET /v1/chat/completions HTTP/2.0")),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))),
    "garbage": (400, b"\x00\xff\xfe" * 50),
    "an unknown method": (405, line(b"BREW /v1/chat/completions HTTP/1.1")),
    "a method in small letters": (405, line(b"get /v1/chat/completions HTTP/1.1")),
    "CONNECT": (405, b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n"),
    "TRACE": (405, line(b"TRACE / HTTP/1.1")),
    "an unknown expectation": (417, POST + b"Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello"),
    "an endless URL": (414, line(b"GET /" + b"a" * 9000 + b" HTTP/1.1")),
    "an endless first line": (414, b"GET /" + b"a" * 90_000),
    "an endless header": (431, GET + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n"),
    "a header without end": (431, GET + b"X-A: " + b"a" * 70_000),
    "one header too many": (431, GET + b"".join(b"X-%d: a\r\n" % n for n in range(100)) + b"\r\n"),
    "a size that is none": (400, CHUNKED + b"g\r\nhello\r\n0\r\n\r\n"),
    "a negative size": (400, CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    "a size with 0x": (400, CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a size after a space": (400, CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n"),
    "a size before a space": (400, CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    "a size without digits": (400, CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    "a size beyond all bounds": (400, CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "a chunk longer than its size": (400, CHUNKED + b"4\r\nhello\r\n0\r\n\r\n"),
    "a chunk shorter than its size": (400, CHUNKED + b"6\r\nhello\r\n0\r\n\r\n"),
    "a chunk that ends in a bare line feed": (400, CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    "a size that ends in a bare line feed": (400, CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    "an extension with a bare line feed": (400, CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "an endless extension": (400, CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n"),
    "extensions without end": (400, CHUNKED + b"".join(b"1;%b\r\na\r\n" % (b"a" * 200) for _ in range(100))),
    "a folded trailer": (400, CHUNKED + b"0\r\nX-A: b\r\n c\r\n\r\n"),
    "a trailer that is none": (400, CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    "trailers without end": (
        400,
        CHUNKED + b"0\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 200) for n in range(100)),
    ),
}


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
async def test_this_is_taken_and_the_next_request_is_answered_too(raw: bytes) -> None:
    wire = await Wire().send(raw + NEXT)
    assert (wire.statuses, wire.closed) == ([200, 200], False)
    assert [b"hello" in raw, False] == [bool(body) for body in bodies(wire)]


@pytest.mark.parametrize(("status", "raw"), REFUSED.values(), ids=REFUSED)
async def test_this_is_refused_and_nothing_that_follows_is_read(status: int, raw: bytes) -> None:
    wire = await Wire().send(raw + NEXT)
    assert (wire.statuses, wire.closed) == ([status], True)
    _, head, body = wire.answers[-1]
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req-" in head
    assert f"content-length: {len(body)}".encode() in head
    assert orjson.loads(body)["error"]["type"] == "invalid_request_error"


async def test_under_v2_it_is_refused_in_the_shape_of_that_protocol() -> None:
    wire = await Wire().send(b"GET /v2/models/a HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert wire.statuses == [400]
    assert "Host" in orjson.loads(wire.answers[-1][2])["error"]


def bodies(wire: Wire) -> list[bytes]:
    return [body for status, _, body in wire.answers if status == 200]


@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
async def test_how_a_stream_is_cut_into_pieces_changes_nothing(name: str) -> None:
    raw = (TAKEN[name] if name in TAKEN else REFUSED[name][1]) + NEXT
    rng = random.Random(f"{SEED} {name}")
    whole = await Wire().send(raw)
    for _ in range(6):
        cuts = [rng.randrange(len(raw)) for _ in range(rng.choice((1, 3, 20)))]
        pieces = await Wire().send(*pieces_of(raw, cuts))
        assert (pieces.statuses, pieces.closed) == (whole.statuses, whole.closed), f"seed {SEED}, cut at {cuts}"
        assert bodies(pieces) == bodies(whole)


async def test_byte_by_byte_it_is_the_same() -> None:
    raw = TAKEN["a chunked body with trailers, which nobody reads"] + TAKEN["a body with a length"] + NEXT
    wire = await Wire().send(*pieces_of(raw, range(len(raw))))
    assert (wire.statuses, bodies(wire)) == ([200, 200, 200], [b"hello", b"hello", b""])


class Other:
    """What httptools alone makes of a stream."""

    def __init__(self, raw: bytes) -> None:
        self.bodies: list[bytes] = []
        self._body = b""
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            httptools.HttpRequestParser(self).feed_data(raw)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.bodies.append(self._body)
        self._body = b""


ALPHABET = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"0",
    b"5",
    b",",
    b";",
    b"chunked",
    b"close",
    b"/",
    b"Host: y\r\n",
]


async def test_what_is_answered_is_what_another_strict_parser_reads(full_size) -> None:
    """Breaks when two readers could see different requests in what we let in."""
    rng = random.Random(SEED)
    taken = [raw for name, raw in TAKEN.items() if "upgrade" not in name]
    answered = 0
    for case in range(full_size(20_000)):
        raw = changed(rng.choice(taken), rng) + rng.choice(taken)
        wire = await Wire().send(raw)
        assert all(status < 500 for status in wire.statuses), f"seed {SEED}, case {case}: {raw!r}"
        ours, theirs = bodies(wire), Other(raw).bodies
        assert ours == theirs[: len(ours)], f"seed {SEED}, case {case}: {raw!r}"
        answered += len(ours)
    assert answered > full_size(20_000) / 4


def changed(raw: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.choice(ALPHABET) + raw[at + rng.randrange(3) :]
    return raw


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "x-forwarded-host", "Forwarded", "X-Real-IP", "X-Cotenant-Model", "x_cotenant_tenant"),
        *("X-Gateway-Key", "X_Forwarded-For", "x-original-url", "X-Rewrite-URL", "Via"),
    ],
)
async def test_headers_that_only_a_trusted_proxy_could_send_are_dropped(name: str) -> None:
    wire = await Wire().send(GET + f"{name}: a\r\nX-Other: b\r\n\r\n".encode())
    assert [*wire.requests[0].headers] == [(b"host", b"x"), (b"x-other", b"b")]


async def test_what_is_remembered_of_headers_is_bounded() -> None:
    wire = Wire()
    for n in range(2 * framing.MAX_KNOWN):
        await wire.send(GET + b"X-A: %d\r\nX-B: %b\r\n\r\n" % (n, b"a" * framing.MAX_KNOWN_BYTES))
    assert 0 < len(framing._LINES) <= framing.MAX_KNOWN
    assert all(len(known) <= framing.MAX_KNOWN_BYTES for known in framing._LINES)
    assert wire.requests[-1].headers[1] == (b"x-a", b"%d" % n)


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH"])
async def test_a_head_that_comes_again_with_another_length_has_that_length(name: bytes) -> None:
    bodies = [b"hello", b"", b"a longer one", b"hello"]
    head = POST + b"X-Gateway-Key: a\r\n%b: %%d\r\nX-A: b\r\n\r\n" % name
    wire = await Wire().send(*[head % len(body) + body for body in bodies])
    assert [body for _, _, body in wire.answers] == bodies
    assert [dict(request.headers)[b"content-length"] for request in wire.requests] == [b"5", b"0", b"12", b"5"]
    assert {len(request.headers) for request in wire.requests} == {3}


@pytest.mark.parametrize(
    "length",
    [
        *(b"", b"+5", b"-5", b"5 5", b"5,5", b"0x5", b"\xb2", b"5\r", b"5\n", b"9" * 19),
        *(b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"5\r\nTransfer-Encoding: chunked", b"5\r\n 5"),
    ],
)
async def test_a_head_that_is_known_takes_no_other_length_than_one_that_is_new(length: bytes) -> None:
    head = POST + b"Content-Length: %b\r\nX-A: b\r\n\r\n"
    wire = await Wire().send(head % b"5" + b"hello", head % length + b"hello")
    assert (wire.statuses, wire.closed) == ([200, 400], True)


async def test_what_is_remembered_of_heads_is_bounded() -> None:
    wire = Wire()
    for n in range(2 * framing.MAX_KNOWN_HEADS):
        await wire.send(POST + b"X-A: %d\r\nContent-Length: 0\r\n\r\n" % n)
        await wire.send(POST + b"X-A: %b\r\nContent-Length: 0\r\n\r\n" % (b"a" * framing.MAX_KNOWN_HEAD_BYTES))
    assert 0 < len(framing._HEADS) <= framing.MAX_KNOWN_HEADS
    assert all(len(known) <= framing.MAX_KNOWN_HEAD_BYTES for known in framing._HEADS)
