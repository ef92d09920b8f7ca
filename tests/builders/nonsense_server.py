"""A server of everything that is not an answer: the model's name in a request says which. Threads on loopback."""

import json
import random
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cotenant_loadtests.record import Outcome
from cotenant_loadtests.spec import Api

Wire = socket.socket
Act = Callable[[Wire, bytes], None]
"""With a connection and the name of the model that was asked."""
EVENT = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"%s",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)
DONE = b"data: [DONE]\n\n"
OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"connection: close\r\n"
"""The server hangs up after each answer; without this a client might send the next request just then."""
KEPT = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = OK + CLOSE + b"content-type: text/event-stream\r\n"
JSON = OK + CLOSE + b"content-type: application/json\r\n"
_CHUNKED_JSON = JSON + b"transfer-encoding: chunked\r\n\r\n"
CHUNKED = STREAM + b"transfer-encoding: chunked\r\n\r\n"
DRIP_S = 0.02


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


@dataclass(frozen=True, slots=True)
class Nonsense:
    """`outcomes`: what a client may call it; more than one where TCP itself may lose what came before a reset."""

    act: Act
    outcomes: tuple[Outcome, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request, where it is another than a streamed chat."""


def _hangs_up(_wire: Wire) -> None:
    pass


def _says(*pieces: bytes, then: Callable[[Wire], None] = _hangs_up) -> Act:
    """Writes the pieces (`%s` is the model), then hangs up or what `then` says."""

    def act(wire: Wire, model: bytes) -> None:
        for piece in pieces:
            wire.sendall(piece.replace(b"%s", model))
        then(wire)

    return act


def _for_ever(piece: bytes, *first: bytes, pause_s: float = 0.0) -> Act:
    def act(wire: Wire, model: bytes) -> None:
        for opening in first:
            wire.sendall(opening)
        while True:  # until the client hangs up
            wire.sendall(piece.replace(b"%s", model))
            time.sleep(pause_s)

    return act


def _dripping(answer: bytes, pause_s: float) -> Act:
    def act(wire: Wire, model: bytes) -> None:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in answer.replace(b"%s", model):
            wire.sendall(bytes([byte]))
            time.sleep(pause_s)

    return act


def _reset(wire: Wire) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _silent(wire: Wire) -> None:
    wire.settimeout(30)
    wire.recv(1)  # until the client hangs up


def _whole_stream(model: bytes, head: bytes = CHUNKED) -> bytes:
    return head + chunk(EVENT % model) + chunk(DONE) + b"0\r\n\r\n"


def _streams(make: Callable[[bytes], bytes], then: Callable[[Wire], None] = _hangs_up) -> Act:
    def act(wire: Wire, model: bytes) -> None:
        wire.sendall(make(model))
        then(wire)

    return act


def _cut_at(share: float) -> Callable[[bytes], bytes]:
    return lambda model: _whole_stream(model)[: int(len(_whole_stream(model)) * share)]


def _body(*events: bytes) -> Callable[[bytes], bytes]:
    """Those events, each in a chunk, and the end of HTTP."""
    return lambda model: CHUNKED + b"".join(chunk(e.replace(b"%s", model)) for e in events) + b"0\r\n\r\n"


def _until_close(head: bytes) -> Callable[[bytes], bytes]:
    return lambda model: head + b"content-type: text/event-stream\r\n\r\n" + EVENT % model + DONE


_WHOLE: Mapping[Api, bytes] = {
    "chat": b'{"model":"%s","choices":[{"message":{"content":"word"}}],"usage":',
    "completions": b'{"model":"%s","choices":[{"text":"word"}],"usage":',
    "embeddings": b'{"model":"%s","data":[{"index":0,"embedding":[0.5]}],"usage":',
}


def _whole(body: bytes) -> Act:
    def act(wire: Wire, model: bytes) -> None:
        answer = body.replace(b"%s", model)
        wire.sendall(JSON + b"content-length: %d\r\n\r\n" % len(answer) + answer)

    return act


def _usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return json.dumps(counts).encode()


def _counts(api: Api, prompt: int, completion: int, **asked: Any) -> Nonsense:
    """A whole answer that is right but for what it counts."""
    act = _whole(_WHOLE[api] + _usage(prompt, completion) + b"}")
    return Nonsense(
        act, ("ok",) if asked.get("check") == "none" else ("wrong_usage",), {"api": api, "streamed": False, **asked}
    )


_GARBAGE = random.Random(5).randbytes(3000)
_USAGE = b'data: {"model":"%s","choices":[],"usage":"x"}\n\n'
_SHAPE = b'{"model_name":"%s","outputs":[{"name":"y","datatype":"FP32","data":[1],"shape":[' + b"9" * 4000
_SHAPE += (b"," + b"9" * 4000) * 1000 + b"]}]}"
_EVENT_USAGE = b'data: {"model":"%s","choices":[],"usage":'
_ERROR = b'data: {"error":"the prompt was: secret"}\n\n'
_DEEP = b'data: {"model":"%s","choices":[],"deep":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n\n"

NONSENSE: dict[str, Nonsense] = {
    # never ends
    "endless-events": Nonsense(_for_ever(chunk(b"data: {}\n\n") * 1000, CHUNKED), ("bad_event",)),
    "endless-answer": Nonsense(_for_ever(chunk(b": " + b"c" * 60_000 + b"\n\n"), CHUNKED), ("too_large",)),
    "endless-line": Nonsense(_for_ever(chunk(b"x" * 60_000), CHUNKED + chunk(b"data: ")), ("too_large",)),
    "endless-head": Nonsense(_for_ever(b"x-flood: yes\r\n" * 500, STREAM), ("too_large",)),
    "endless-header": Nonsense(_for_ever(b"y" * 60_000, STREAM + b"x-giant: "), ("too_large",)),
    "endless-extension": Nonsense(_for_ever(b"e" * 60_000, CHUNKED + b"5;"), ("too_large",)),
    "endless-trailer": Nonsense(_for_ever(b"x-t: 1\r\n" * 500, CHUNKED + chunk(DONE) + b"0\r\n"), ("too_large",)),
    "endless-continue": Nonsense(_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"), ("framing",)),
    "endless-error": Nonsense(
        _for_ever(chunk(b"e" * 60_000), b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n"), ("too_large",)
    ),
    "endless-comments": Nonsense(_for_ever(chunk(b": still here\n\n"), CHUNKED, pause_s=DRIP_S), ("timeout",)),
    "slow-head": Nonsense(_dripping(b"HTTP/1.1 200 OK\r\n" + b"x-slow: 1\r\n" * 100, DRIP_S), ("timeout",)),
    "slow-body": Nonsense(_dripping(CHUNKED + chunk(b": slow\n" * 100), DRIP_S), ("timeout",)),
    "silence": Nonsense(_says(then=_silent), ("timeout",)),
    "silence-after-head": Nonsense(_says(CHUNKED, then=_silent), ("timeout",)),
    "no-end-after-done": Nonsense(_says(CHUNKED, chunk(DONE), then=_silent), ("timeout",)),
    # not HTTP
    "garbage": Nonsense(_says(_GARBAGE), ("framing",)),
    "words": Nonsense(_says(b"hello world\r\n\r\n"), ("framing",)),
    "tls-alert": Nonsense(_says(b"\x15\x03\x01\x00\x02\x02\x46"), ("framing",)),
    "http-2": Nonsense(_says(b"HTTP/2 200\r\n\r\n"), ("framing",)),
    "status-of-letters": Nonsense(_says(b"HTTP/1.1 abc OK\r\n\r\n"), ("framing",)),
    "bad-header": Nonsense(_says(b"HTTP/1.1 200 OK\r\nx y z: 1\r\n\r\n"), ("framing",)),
    "bad-chunk-size": Nonsense(_says(CHUNKED, b"zz\r\nab\r\n0\r\n\r\n"), ("framing",)),
    "chunk-too-small": Nonsense(_says(CHUNKED, b"3\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), ("framing",)),
    "chunk-too-large": Nonsense(_says(CHUNKED, b"fff\r\n", DONE), ("cut_short",)),
    "giant-chunk-size": Nonsense(_says(CHUNKED, b"fffffffffffffffff\r\n"), ("framing",)),
    "negative-length": Nonsense(_says(STREAM + b"content-length: -1\r\n\r\n"), ("framing",)),
    "two-lengths": Nonsense(_says(STREAM + b"content-length: 1\r\ncontent-length: 2\r\n\r\n"), ("framing",)),
    "length-and-chunks": Nonsense(_says(STREAM + b"content-length: 5\r\n" + CHUNKED[len(STREAM) :]), ("framing",)),
    "switching": Nonsense(_says(b"HTTP/1.1 101 S\r\nupgrade: h2c\r\n\r\n", then=_silent), ("framing",)),
    "more-after-the-end": Nonsense(_streams(lambda model: _whole_stream(model, KEPT) + b"more"), ("framing",)),
    "two-answers": Nonsense(_streams(lambda model: 2 * _whole_stream(model, KEPT)), ("framing",)),
    # not whole
    "close-at-once": Nonsense(_says(), ("cut_short", "reset")),
    "half-head": Nonsense(_streams(_cut_at(0.1)), ("cut_short",)),
    "half-answer": Nonsense(_streams(_cut_at(0.6)), ("cut_short",)),
    "no-last-chunk": Nonsense(_streams(lambda model: _whole_stream(model)[:-5]), ("cut_short",)),
    "half-length": Nonsense(_says(STREAM + b"content-length: 500\r\n\r\n", DONE), ("cut_short",)),
    **{f"reset-at-{at}": Nonsense(_streams(_cut_at(at / 100), _reset), ("reset",)) for at in (0, 10, 40, 60, 95)},
    # HTTP, and no answer
    "redirect": Nonsense(
        _says(b"HTTP/1.1 302 F\r\n" + CLOSE + b"location: /elsewhere\r\ncontent-length: 0\r\n\r\n"), ("redirect",)
    ),
    "no-content": Nonsense(_says(b"HTTP/1.1 204 No\r\n" + CLOSE + b"\r\n"), ("http_error",)),
    "html": Nonsense(_says(STREAM + b"content-length: 14\r\n\r\n<html>\n</html>"), ("bad_event",)),
    "whole-json": Nonsense(_says(JSON + b"content-length: 2\r\n\r\n{}"), ("bad_event",)),
    "nothing": Nonsense(_says(STREAM + b"content-length: 0\r\n\r\n"), ("no_done",)),
    "only-done": Nonsense(_streams(_body(DONE)), ("empty",)),
    "bad-utf8": Nonsense(_streams(_body(EVENT.replace(b"word", b"\xff\xfe"), DONE)), ("bad_utf8",)),
    "bad-utf8-unread": Nonsense(_streams(_body(EVENT.replace(b'"id":"1"', b'"id":"\xc3("'), DONE)), ("bad_utf8",)),
    "null-bytes": Nonsense(_streams(_body(EVENT.replace(b"word", b"\0\0"), DONE)), ("bad_json",)),
    "deep": Nonsense(_streams(_body(_DEEP, DONE)), ("bad_json", "bad_event", "empty")),
    "giant-event": Nonsense(_streams(_body(EVENT.replace(b"word", b"w" * (2 << 20)), DONE)), ("too_large",)),
    "half-event": Nonsense(_streams(_body(EVENT, b'data: {"id":')), ("bad_json",)),
    "list": Nonsense(_streams(_body(b"data: [1]\n\n", DONE)), ("bad_event",)),
    "string-usage": Nonsense(_streams(_body(EVENT, _USAGE)), ("bad_event",)),
    "error-words": Nonsense(_streams(_body(EVENT, _ERROR)), ("error_event",)),
    "huge-usage": Nonsense(
        _streams(_body(EVENT, _EVENT_USAGE + _usage(1, 2**70) + b"}\n\n", DONE)), ("wrong_usage",)
    ),
    # whole answers
    **{
        f"{api}-counts-{count}": _counts(api, 1, count)
        for api in _WHOLE
        for count in (-(2**63), -2, 10**9 + 1, 2**63 - 2, 2**64 - 2, 2**70)
    },
    "endless-whole": Nonsense(_for_ever(b"2\r\n  \r\n" * 10_000, _CHUNKED_JSON), ("too_large",), {"streamed": False}),
    "endless-shape": Nonsense(_whole(_SHAPE), ("wrong_answer",), {"api": "oip", "streamed": False}),
    "unchecked-counts": _counts("chat", 2**64 - 1, 2**70, check="none"),
    # unusual, and right
    "http-1.0": Nonsense(_streams(_until_close(b"HTTP/1.0 200 OK\r\n")), ("ok",)),
    "no-length": Nonsense(_streams(_until_close(b"HTTP/1.1 200 OK\r\n")), ("ok",)),
    "continue": Nonsense(_streams(lambda model: b"HTTP/1.1 100 Continue\r\n\r\n" + _whole_stream(model)), ("ok",)),
    "byte-by-byte": Nonsense(_dripping(CHUNKED + b"0\r\n\r\n", 0.0005), ("no_done",)),
    "carriage-returns": Nonsense(_streams(_body(*(line.replace(b"\n", b"\r\n") for line in (EVENT, DONE)))), ("ok",)),
    "no-space": Nonsense(_streams(_body(EVENT.replace(b"data: ", b"data:"), DONE)), ("ok",)),
    "named-events": Nonsense(_streams(_body(b"event: message\nid: 7\n" + EVENT, b": bye\n\n", DONE)), ("ok",)),
    "one-chunk": Nonsense(_streams(_body(EVENT + EVENT + DONE)), ("ok",)),
    "done-without-empty-line": Nonsense(_streams(_body(EVENT, DONE[:-1])), ("ok",)),
}


class _Handler(socketserver.BaseRequestHandler):
    request: Wire

    def handle(self) -> None:
        model = _read_model(self.request)
        if model is not None:
            try:
                NONSENSE[model].act(self.request, model.encode())
            except OSError:
                pass  # the client has had enough


def _read_model(wire: Wire) -> str | None:
    data = b""
    while b"\r\n\r\n" not in data:
        received = wire.recv(65536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += wire.recv(65536)
    if (path := head.split()[1].decode()).startswith("/v2/models/"):
        return path.split("/")[3]
    fields: dict[str, Any] = json.loads(body)
    return str(fields["model"])


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the polite end that would come before a reset


@contextmanager
def nonsense_server() -> Iterator[int]:
    """Yields its port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
