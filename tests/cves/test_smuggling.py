"""Two readers of one connection must see the same requests: what is unclear is refused, and nothing of it goes on."""

import asyncio
import time

import pytest
from tests.builders.gateway import chat, raw_connection
from tests.builders.raw_http import PATIENCE_S, answers, statuses
from tests.cves.conftest import AUTHORIZED, Stage

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

QUIET_S = 2.0
"""Some of these leave the connection open, for the next request."""
BODY = chat("outer")
HIDDEN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-hidden: 1\r\ncontent-length: 2\r\n\r\n{}"


def post(*lines: bytes, body: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"host: x", AUTHORIZED, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunk(data: bytes, size: bytes | None = None) -> bytes:
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + b"\r\n"


CHUNKED = b"transfer-encoding: chunked"
LENGTH = b"content-length: %d" % len(BODY)
END = b"0\r\n\r\n"
CASES: dict[str, bytes] = {
    "CVE-2025-43859: no line end after a chunk": post(CHUNKED, body=chunk(BODY)[:-2] + b"XX" + END + HIDDEN),
    "CVE-2025-43859: a chunk longer than it says": post(
        CHUNKED, body=chunk(BODY, b"%x" % (len(BODY) - 3)) + END + HIDDEN
    ),
    "CVE-2025-53643: a length in the trailers": post(
        CHUNKED, body=chunk(BODY) + b"0\r\ncontent-length: 500\r\n\r\n" + HIDDEN
    ),
    "CVE-2025-53643: a coding in the trailers": post(
        CHUNKED, body=chunk(BODY) + b"0\r\ntransfer-encoding: chunked\r\n\r\n" + HIDDEN
    ),
    "CVE-2025-53643: a key in the trailers": post(
        CHUNKED, body=chunk(BODY) + b"0\r\n" + AUTHORIZED + b"\r\n\r\n" + HIDDEN
    ),
    "CVE-2025-69224: digits of another alphabet": post(b"content-length: \xd9\xa5\xd9\xa5", body=BODY + HIDDEN),
    "CVE-2025-69224: a chunk size of another alphabet": post(
        CHUNKED, body=chunk(BODY, "\u0665".encode()) + END + HIDDEN
    ),
    "CVE-2026-111750: length and coding": post(LENGTH, CHUNKED, body=END + HIDDEN),
    "CVE-2026-111750: coding and length": post(CHUNKED, b"content-length: 4", body=chunk(BODY) + END + HIDDEN),
    "two lengths": post(LENGTH, b"content-length: 5", body=BODY + HIDDEN),
    "two lengths in one": post(LENGTH + b", 5", body=BODY + HIDDEN),
    "a length with a sign": post(b"content-length: +%d" % len(BODY), body=BODY + HIDDEN),
    "a length in hexadecimal": post(b"content-length: 0x%x" % len(BODY), body=BODY + HIDDEN),
    "a coding with a tab": post(b"transfer-encoding:\tchunked", LENGTH, body=END + HIDDEN),
    "a coding that is none": post(b"transfer-encoding: xchunked", LENGTH, body=BODY + HIDDEN),
    "a coding that is not the last": post(b"transfer-encoding: chunked, identity", body=chunk(BODY) + END + HIDDEN),
    "a space before the colon": post(b"transfer-encoding : chunked", LENGTH, body=END + HIDDEN),
    "a folded line": post(b"x: y\r\n transfer-encoding: chunked", LENGTH, body=BODY + HIDDEN),
    "a bare line end in a header": post(b"x: y\ntransfer-encoding: chunked", LENGTH, body=BODY + HIDDEN),
    "a bare return in a header": post(b"x: y\rtransfer-encoding: chunked", LENGTH, body=BODY + HIDDEN),
    "a null in a header": post(b"x: \x00", LENGTH, body=BODY + HIDDEN),
    "a chunk size with a sign": post(CHUNKED, body=chunk(BODY, b"+%x" % len(BODY)) + END + HIDDEN),
    "a chunk size of 17 digits": post(CHUNKED, body=chunk(BODY, b"1" + b"0" * 16) + END + HIDDEN),
    "chunks that end in a bare line end": post(CHUNKED, body=chunk(BODY).replace(b"\r\n", b"\n") + b"0\n\n" + HIDDEN),
    "a body that is a request": post(LENGTH, body=BODY) + HIDDEN,
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
async def test_a_hidden_request_reaches_no_engine_and_borrows_no_key(data: bytes, stage: Stage) -> None:
    """CVE-2025-43859 (h11 before 0.16), CVE-2025-53643 and CVE-2025-69224 (aiohttp), CVE-2026-111750: the bytes after
    an unclear end are another request for one reader and not for the next. Every case has a hidden one behind it,
    without a key: if it is read at all, it is refused, and the engine hears at most what came before, unchanged."""
    answered = statuses(await all_answers(stage, data))
    assert answered.count(200) <= 1
    assert all(status in (200, 400, 401, 411, 413, 415, 501) for status in answered)
    assert 200 not in answered[1:]
    for seen in stage.heard():
        assert (seen.path, seen.body, "transfer-encoding" in seen.headers) == ("/v1/chat/completions", BODY, False)
        assert "x-hidden" not in seen.headers
    assert len(stage.heard()) == answered.count(200)


async def all_answers(stage: Stage, data: bytes) -> bytes:
    """Until the server closes, or is quiet when it has answered what an engine has heard: a busy one may be slow."""
    got = b""
    async with raw_connection(stage.port) as (reader, writer):
        writer.write(data)
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            try:
                piece = await asyncio.wait_for(reader.read(1 << 16), QUIET_S)
            except TimeoutError:
                if got and statuses(got).count(200) >= len(stage.heard()):
                    break
                continue
            except ConnectionError:
                break
            if not piece:
                break
            got += piece
    return got


async def test_what_is_clear_is_understood(stage: Stage) -> None:
    """So that refusing everything would not pass: a length, chunks, and two requests on one connection."""
    for data in (post(LENGTH, body=BODY), post(CHUNKED, body=chunk(BODY[:9]) + chunk(BODY[9:]) + END)):
        answered = await answers(stage.port, data + post(b"connection: close", LENGTH, body=BODY))
        assert statuses(answered) == [200, 200]
    assert [seen.body for seen in stage.heard()] == [BODY] * 4


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"%0d%0a", b"\xe5\x98\x8a\xe5\x98\x8d", b"\\r\\n"])
async def test_a_name_of_a_model_adds_no_header_to_what_goes_to_an_engine(end: bytes, stage: Stage) -> None:
    """CVE-2025-69224's kind from inside: the gateway names the model to the engine in a header of its own."""
    name = b"search/tensor" + end + b"x-hidden: 1"
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}'
    head = post(
        b"connection: close", b"content-length: %d" % len(body), body=body, path=b"/v2/models/" + name + b"/infer"
    )
    assert statuses(await answers(stage.port, head)) in ([400], [404])
    assert stage.heard() == []
