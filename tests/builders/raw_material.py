"""Parts of hostile requests: lengths, codings, targets, hosts, fields, and what is no HTTP/1.1 at all."""

from tests.builders.raw_requests import KEY, chunk

LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b" \r\n", b"\x0b", b"\x00\r\n", b"\r\x00\n")
LENGTH_NAMES = (
    b"content-length",
    b"Content-Length",
    b"CONTENT-LENGTH",
    b"content_length",
    b"content-length ",
    b" content-length",
)
CODING_NAMES = (
    b"transfer-encoding",
    b"Transfer-Encoding",
    b"transfer_encoding",
    b"transfer-encoding ",
    b"\ttransfer-encoding",
)


def lengths(size: bytes) -> tuple[bytes, ...]:
    other = b"%d" % (int(size) + 5)
    right = (size, size, b"0" + size, size + b" ")
    lists = (size + b", " + size, size + b"," + other, size + b" " + size)
    spelled = (
        b"+" + size,
        b"-" + size,
        b"0x" + size,
        size + b".0",
        size + b"e0",
        b"1_0",
        b"\xd9\xa5",
        b'"%s"' % size,
    )
    return (*right, *lists, *spelled, b"", b"0", b"5", b"99999999999999999999", b"4294967301", b"-1")


CODINGS = (
    b"chunked",
    b"chunked",
    b"Chunked",
    b" chunked",
    b"chunked ",
    b"\x0bchunked",
    b"xchunked",
    b"chunkedx",
    b"chunked;a=b",
    b"chunked, chunked",
    b"chunked, identity",
    b"identity",
    b"identity, chunked",
    b"gzip, chunked",
    b"gzip",
    b'"chunked"',
    b"",
    b"chunked\r\ntransfer-encoding: identity",
    b"chunked\r\ntransfer-encoding: chunked",
    b"\r\n chunked",
    b"ch\x00unked",
)
LINES = (
    b"POST /v1/chat/completions HTTP/1.1",
    b"POST /v1/chat/completions HTTP/1.1",
    b"POST /v1/chat/completions HTTP/1.0",
    b"GET /v1/models HTTP/1.1",
    b"HEAD /healthz HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
)


TARGETS = tuple(
    method + b" " + target + b" " + version
    for method, target, version in (
        (b"POST", b"@evil.example", b"HTTP/1.1"),
        (b"POST", b"//evil.example/v1/chat/completions", b"HTTP/1.1"),
        (b"POST", b"http://x/v1/chat/completions", b"HTTP/1.1"),
        (b"POST", b"/v1/../v1/chat/completions", b"HTTP/1.1"),
        (b"POST", b"/v1/%2e%2e/v1/chat/completions", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/completions#x", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/completions?x=\x00", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/completions\xff", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/%63ompletions", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/completions%00", b"HTTP/1.1"),
        (b"POST", b"/v1/chat/completions%0d%0ax:%20y", b"HTTP/1.1"),
        (b"POST", b"/" + b"a" * 9000, b"HTTP/1.1"),
        (b"POST", b"*", b"HTTP/1.1"),
        (b"POST", b"", b"HTTP/1.1"),
        (b"POST", b"/v1/chat completions", b"HTTP/1.1"),
        (b"CONNECT", b"evil.example:443", b"HTTP/1.1"),
        (b"TRACE", b"/v1/chat/completions", b"HTTP/1.1"),
        (b"FOO", b"/v1/chat/completions", b"HTTP/1.1"),
        (b"post", b"/v1/chat/completions", b"HTTP/1.1"),
        (b"PRI", b"*", b"HTTP/2.0"),
        (b"POST", b"/v1/chat/completions", b"HTTP/0.9"),
        (b"POST", b"/v1/chat/completions", b"HTTP/1.2"),
        (b"POST", b"/v1/chat/completions", b"HTTP/11.1"),
        (b"POST", b"/v1/chat/completions", b"http/1.1"),
        (b"POST", b"/v1/chat/completions", b""),
    )
)
HOSTS = (
    b"x: y",
    b"host:",
    b"host: x\r\nhost: x",
    b"host: x\r\nhost: evil.example",
    b"host : x",
    b"host: a/?x=",
    b"host: x y",
    b"host: x@evil.example",
    b"host: " + b"x" * 3000,
    b"host: [::1]:80",
)
EXTRA = (
    b"x-cotenant-model: search/other",
    b"x-cotenant-instance: i2",
    b"x-request-id: a\x01b",
    b"x-request-id: " + b"r" * 5000,
    b"x-api-key: " + KEY,
    b"x-api-key: other",
    b"authorization: Bearer other",
    b"Authorization: Bearer " + KEY,
    b"connection: close",
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AA==",
    b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA",
    b"expect: 100-continue",
    b"expect: 200-maybe",
    b"content-encoding: gzip",
    b"x: y\x00z",
    b"x: y\x7fz",
    b"x: \xff\xfe",
    b"x y: z",
    b": z",
    b"x",
    b"x:",
    b"x[]: y",
    b"x\x80: y",
    b"cookie: " + b"c" * 70_000,
    b"\r\n".join(b"x%d: y" % number for number in range(300)),
    b"inference-header-content-length: 5",
    b"traceparent: 00-zz-1-01",
    b"forwarded: for=1\r\nx-forwarded-host: evil.example\r\nx-forwarded-prefix: /v2",
)


GARBAGE = (
    b"GET /\r\n",
    b"GET /healthz\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    bytes.fromhex("80460103010000"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"HELO x\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    b"{}\n",
    b"\x00" * 300,
    b"\xff" * 300,
    b"A" * 70_000,
    b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n",
    b"\r\n" * 2000,
)


def nearly_chunks(body: bytes) -> tuple[bytes, ...]:
    """One chunk of a body in many spellings, a few of them right."""
    size = b"%x" % len(body)
    return (
        b"%s\r\n%s\r\n" % (size.upper(), body),
        b"%s;name=value\r\n%s\r\n" % (size, body),
        b"%s;a\nb\r\n%s\r\n" % (size, body),
        b"000%s\r\n%s\r\n" % (size, body),
        b"%s \r\n%s\r\n" % (size, body),
        b" %s\r\n%s\r\n" % (size, body),
        b"0x%s\r\n%s\r\n" % (size, body),
        b"+%s\r\n%s\r\n" % (size, body),
        b"-%s\r\n%s\r\n" % (size, body),
        b"%s\n%s\r\n" % (size, body),
        b"%s\r\n%s\n" % (size, body),
        b"%s\r\n%s" % (size, body),
        b"%s\r\n%sXX" % (size, body),
        b"%x\r\n%s\r\n" % (len(body) + 1, body),
        b"%x\r\n%s\r\n" % (len(body) - 1, body),
        b"f" * 15 + b"\r\n" + body,
        b"1" + b"0" * 16 + size + b"\r\n" + body + b"\r\n",
        b"\r\n",
        b"g\r\n",
        b"".join(chunk(body[at : at + 1]) for at in range(len(body))),
    )


LAST_CHUNKS = (
    b"0\r\n\r\n",
    b"0\r\n\r\n",
    b"00\r\n\r\n",
    b"0\n\n",
    b"0\r\n",
    b"0\r\nx: y\r\n\r\n",
    b"0\r\nhost: y\r\n\r\n",
    b"0\r\ncontent-length: 5\r\n\r\n",
    b"0\r\n x\r\n\r\n",
    b"0;a=b\r\n\r\n",
    b"-0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"",
)
