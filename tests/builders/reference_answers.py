"""What the reference server answers: bytes of whole answers and of streams, right ones and wrong ones; pure.

Its text is that of cotenant's echo engine: the words of the last user message in turn, then ` [crc32=…]`.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import orjson

from cotenant_loadtests.record import Outcome

FAULTS: dict[str, Outcome] = {
    "429": "rate_limited",
    "503": "overloaded",
    "500": "http_error",
    "400": "http_error",
    "redirect": "redirect",
    "error_event": "error_event",
    "cut": "cut_short",
    "reset": "reset",
    "no_done": "no_done",
    "after_done": "after_done",
    "wrong_checksum": "wrong_answer",
    "wrong_word": "wrong_answer",
    "missing_word": "wrong_answer",
    "wrong_model": "wrong_model",
    "wrong_usage": "wrong_usage",
    "empty": "empty",
    "bad_json": "bad_json",
    "bad_event": "bad_event",
    "bad_utf8": "bad_utf8",
}
"""Kind of fault → what a client must call it, when it checks a streamed echo answer."""
STREAM_FAULTS = ("error_event", "no_done", "after_done", "bad_event")
"""Those that a whole answer cannot have; it is right instead."""
RETRY_AFTER_S = 7
HEAD = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\nx-request-id: %s\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as answers depend on it."""

    api: str
    model: str
    words: tuple[str, ...]
    inputs: int
    tokens: int
    """In the answer, the checksum included."""
    prompt_tokens: int
    streamed: bool
    include_usage: bool
    limited: bool
    """`max_tokens` was given."""


def read_request(path: str, body: bytes) -> Asked:
    fields = orjson.loads(body)
    api = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings"}.get(
        path, "oip"
    )
    inputs = fields.get("input", fields.get("inputs", ()))
    words = _words(api, fields)
    max_tokens = fields.get("max_tokens", fields.get("max_completion_tokens"))
    return Asked(
        api=api,
        model=path.split("/")[3] if api == "oip" else fields["model"],
        words=words,
        inputs=1 if isinstance(inputs, str) else len(inputs),
        tokens=max_tokens or len(words) + 1,
        prompt_tokens=_prompt_tokens(api, fields),
        streamed=bool(fields.get("stream")),
        include_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        limited=max_tokens is not None,
    )


def _words(api: str, fields: dict[str, Any]) -> tuple[str, ...]:
    if api == "chat":
        users = [message for message in fields["messages"] if message["role"] == "user"]
        return tuple(_text((users or fields["messages"])[-1]).split())
    return tuple(fields["prompt"].split()) if api == "completions" else ()


def _text(message: dict[str, Any]) -> str:
    """Content is a text, or a list of parts as some clients send it."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _prompt_tokens(api: str, fields: dict[str, Any]) -> int:
    if api == "chat":
        return sum(len(_text(message).split()) for message in fields["messages"])
    texts = fields.get("prompt", fields.get("input", ()))
    return sum(len(text.split()) for text in ([texts] if isinstance(texts, str) else texts))


def echo_tokens(words: Sequence[str], count: int) -> list[str]:
    """The `count` tokens of an echo answer."""
    spoken = list(islice(cycle(words or ("empty",)), count - 1))
    tokens = spoken[:1] + [f" {word}" for word in spoken[1:]]
    return [*tokens, f" [crc32={zlib.crc32(''.join(tokens).encode()):08x}]"]


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def render_stream(asked: Asked, fault: str | None, request_id: bytes) -> list[bytes]:
    """What is written for each token in turn, framing included; the first has the head, the last the end."""
    model = "another-model" if fault == "wrong_model" else asked.model
    tokens = _spoiled(echo_tokens(asked.words, asked.tokens), fault)
    before, after = _event_frame(asked.api, model)
    pieces = [chunk(b'data: %s%s%s,"finish_reason":null}]}\n\n' % (before, orjson.dumps(t), after)) for t in tokens]
    finish = b"length" if asked.limited else b"stop"
    last = b'data: %s%s%s,"finish_reason":"%s"}]}\n\n' % (before, orjson.dumps(tokens[-1]), after, finish)
    pieces[-1] = chunk(last)
    if fault == "empty":
        pieces = [chunk(b'data: %s""%s,"finish_reason":"stop"}]}\n\n' % (before, after))]
    pieces[0] = (
        HEAD % (200, b"OK", b"text/event-stream", request_id) + b"transfer-encoding: chunked\r\n\r\n" + pieces[0]
    )
    usage = _usage_event(asked, model, fault) if asked.include_usage else b""
    pieces[-1] += usage + _ending(fault)
    return _broken(pieces, fault)


def _event_frame(api: str, model: str) -> tuple[bytes, bytes]:
    kind, name = (b"text_completion", b'"text":') if api == "completions" else (b"chat.completion.chunk", b"")
    head = b'{"id":"ref-1","object":"%s","created":1700000000,"model":%s,"choices":[{"index":0,' % (
        kind,
        orjson.dumps(model),
    )
    return (head + name, b"") if name else (head + b'"delta":{"content":', b"}")


def _spoiled(tokens: list[str], fault: str | None) -> list[str]:
    if fault == "wrong_checksum":
        return [*tokens[:-1], " [crc32=00000000]"]
    if fault == "wrong_word":
        return ["intruder", *tokens[1:]]
    return tokens[:-1] if fault == "missing_word" else tokens


def _usage(asked: Asked, fault: str | None) -> dict[str, int]:
    more = 1 if fault == "wrong_usage" else 0
    used = {"prompt_tokens": asked.prompt_tokens, "completion_tokens": asked.tokens}
    return {**used, "total_tokens": sum(used.values()) + more}


def _usage_event(asked: Asked, model: str, fault: str | None) -> bytes:
    kind = "text_completion" if asked.api == "completions" else "chat.completion.chunk"
    body = {"id": "ref-1", "object": kind, "created": 1700000000, "model": model, "choices": []}
    return chunk(b"data: " + orjson.dumps({**body, "usage": _usage(asked, fault)}) + b"\n\n")


def _ending(fault: str | None) -> bytes:
    if fault == "no_done":
        return LAST_CHUNK
    more = chunk(b'data: {"late":true}\n\n') if fault == "after_done" else b""
    return chunk(_DONE) + more + LAST_CHUNK


_BREAKS = {
    "error_event": b'data: {"error":{"message":"broke","type":"server_error","code":"engine_lost"}}\n\n',
    "bad_json": b'data: {"id":"ref-1","choices":[{\n\n',
    "bad_event": b'data: {"surprise":1}\n\n',
    "bad_utf8": b'data: {"id":"\xff\xfe","choices":[],"model":"x"}\n\n',
}


def _broken(pieces: list[bytes], fault: str | None) -> list[bytes]:
    """Half way through the fault comes, and nothing after it; `cut` and `reset` hang up there."""
    half = max(1, len(pieces) // 2)
    if fault in ("cut", "reset"):
        return pieces[:half] if len(pieces) > 1 else [pieces[0][:-9]]
    if fault in _BREAKS:
        kept = pieces[:half] if len(pieces) > 1 else [pieces[0].split(b"\r\n\r\n", 1)[0] + b"\r\n\r\n"]
        return [*kept[:-1], kept[-1] + chunk(_BREAKS[fault]) + LAST_CHUNK]
    return pieces


def render_whole(asked: Asked, fault: str | None, request_id: bytes) -> bytes:
    """A whole answer of any API."""
    body = orjson.dumps(_whole(asked, None if fault in STREAM_FAULTS else fault))
    if fault == "bad_json":
        body = body[:-2]
    elif fault == "bad_utf8":
        body = body.replace(b'"id"', b'"id\xff"')
    head = HEAD % (200, b"OK", b"application/json", request_id) + b"content-length: %d\r\n\r\n" % len(body)
    return head + (body[: len(body) // 2] if fault in ("cut", "reset") else body)


def _whole(asked: Asked, fault: str | None) -> dict[str, Any]:
    model = "another-model" if fault == "wrong_model" else asked.model
    if asked.api == "embeddings":
        vectors = [{"object": "embedding", "index": i, "embedding": [0.25, -0.5]} for i in range(asked.inputs)]
        more = 1 if fault == "wrong_usage" else 0
        usage = {"prompt_tokens": asked.prompt_tokens, "total_tokens": asked.prompt_tokens + more}
        return {"object": "list", "data": [] if fault == "empty" else vectors, "model": model, "usage": usage}
    if asked.api == "oip":
        output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.25]}
        return {"model_name": model, "outputs": [] if fault == "empty" else [output]}
    text = "" if fault == "empty" else "".join(_spoiled(echo_tokens(asked.words, asked.tokens), fault))
    shown = {"text": text} if asked.api == "completions" else {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, **shown, "finish_reason": "length" if asked.limited else "stop"}
    return {"id": "ref-1", "created": 1700000000, "model": model, "choices": [choice], "usage": _usage(asked, fault)}


def render_about() -> bytes:
    """What routers and benchmarks ask before they begin: health and models."""
    body = b'{"object":"list","data":[{"id":"reference","object":"model","created":1700000000,"owned_by":"tests"}]}'
    return HEAD % (200, b"OK", b"application/json", b"about") + b"content-length: %d\r\n\r\n%s" % (len(body), body)


def render_error(kind: str, request_id: bytes) -> bytes:
    """429, 503, 500, 400 and `redirect`."""
    status = 307 if kind == "redirect" else int(kind)
    body = b'{"error":{"message":"as ordered","type":"server_error","code":"injected_%s"}}' % kind.encode()
    more = {307: b"location: /elsewhere\r\n", 429: b"retry-after: %d\r\n" % RETRY_AFTER_S}.get(status, b"")
    head = HEAD % (status, b"Ordered", b"application/json", request_id)
    return head + more + b"content-length: %d\r\n\r\n%s" % (len(body), body)
