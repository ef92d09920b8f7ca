"""Right requests as bytes, each with a mark of its own in its prompt. Pure."""

import random

import orjson

from tests.builders.gateway import KEYS

KEY = KEYS["search"].encode()


def good(rng: random.Random, mark: str) -> bytes:
    """One right request; what comes back may be an error of its content, but never of its form."""
    return rng.choice((chat, chat, chat, _chunked, _get, _not_json, _wrong_key, _nowhere))(rng, mark)


def prompt(rng: random.Random, mark: str) -> bytes:
    stream = {"stream": True} if rng.random() < 0.3 else {}
    messages = [{"role": "user", "content": f"{mark} {'x' * rng.choice((0, 3, 400))}"}]
    return orjson.dumps({"model": "search/echo", "messages": messages, **stream})


def head(
    line: bytes = b"POST /v1/chat/completions HTTP/1.1", *lines: bytes, host: bytes = b"host: x", key: bytes = KEY
) -> bytes:
    return b"\r\n".join((line, host, b"authorization: Bearer " + key, *lines)) + b"\r\n\r\n"


def with_length(body: bytes, *lines: bytes) -> bytes:
    return head(b"POST /v1/chat/completions HTTP/1.1", b"content-length: %d" % len(body), *lines) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chat(rng: random.Random, mark: str) -> bytes:
    return with_length(prompt(rng, mark), b"content-type: application/json")


def _chunked(rng: random.Random, mark: str) -> bytes:
    body = prompt(rng, mark)
    cut = rng.randrange(1, len(body))
    start = head(b"POST /v1/chat/completions HTTP/1.1", b"Transfer-Encoding: chunked")
    return start + chunk(body[:cut]) + chunk(body[cut:]) + b"0\r\n\r\n"


def _get(rng: random.Random, mark: str) -> bytes:
    path = rng.choice((b"/v1/models", b"/healthz", b"/v2/health/live", b"/v1/models/search/echo?a=b"))
    return head(b"GET %s HTTP/1.1" % path)


def _not_json(rng: random.Random, mark: str) -> bytes:
    return with_length(rng.randbytes(rng.randrange(1, 40)))


def _wrong_key(rng: random.Random, mark: str) -> bytes:
    body = prompt(rng, mark)
    line = b"POST /v1/chat/completions HTTP/1.1"
    return head(line, b"content-length: %d" % len(body), key=b"not-a-key") + body


def _nowhere(rng: random.Random, mark: str) -> bytes:
    return head(rng.choice((b"GET /nowhere HTTP/1.1", b"PATCH /v1/models HTTP/1.1", b"DELETE /v2/x HTTP/1.1")))
