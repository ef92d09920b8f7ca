"""Requests to every route, right ones and ones that are wrong in any place: hypothesis strategies."""

import copy
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

import orjson
from hypothesis import strategies as st

from tests.builders.gateway import KEYS
from tests.builders.gateway_stage import SERVED, STATES

PROMPT = "canary-prompt"
WRONG_KEY = "canary-key"
FIELD = "canary-field"
MAX_BODY_BYTES = 20_000
"""For the gateway to be started with: bodies above it cost the tests little."""


@dataclass(frozen=True, slots=True)
class GeneratedRequest:
    method: str
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    chunked: bool

    @property
    def data(self) -> bytes:
        framing = b"transfer-encoding: chunked" if self.chunked else b"content-length: %d" % len(self.body)
        line = b"%s %s HTTP/1.1" % (self.method.encode(), self.target)
        lines = (line, b"host: x", framing, *(b"%s: %s" % field for field in self.fields))
        body = b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.chunked and self.body else self.body
        return b"\r\n".join(lines) + b"\r\n\r\n" + body + (b"0\r\n\r\n" if self.chunked else b"")

    @property
    def may_wait(self) -> bool:
        """It may name a model that no engine serves now."""
        return any(name.encode() in self.target + self.body for name in (*STATES, "unheard"))


HOSTILE_NAMES = (
    "",
    " ",
    "../echo",
    "search/../ads/echo",
    "%2e%2e/echo",
    "search//echo",
    "/echo",
    "echo/",
    "echo\n",
    "echo\r\nx-cotenant-model: search/embed",
    "echo\x00",
    "\u202eohce",
    "ｅｃｈｏ",
    'echo"',
    "echo' OR '1'='1",
    "{{echo}}",
    "${jndi:ldap://x}",
    "SEARCH/ECHO",
    "search/echo/infer",
    "a/b/c",
    "e" * 201,
    "e" * 6000,
)
_STATES = (*STATES, "unheard")


def names(*right: str) -> st.SearchStrategy[str]:
    """Names of models: mostly those of the task."""
    known = [*right, *(f"search/{name}" for name in right)]
    return st.sampled_from([*known * (100 // len(known)), *SERVED, *_STATES, *HOSTILE_NAMES])


TEXTS = st.one_of(st.just(PROMPT), st.text(max_size=20).map(lambda text: f"{PROMPT} {text}"))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([2**31, 2**53, -(2**53), 2**63, 2**64, 10**30, 1e308, -0.0, 0.5, 1e-320]),
        st.text(max_size=8),
        st.sampled_from(["", "\x00", "\ud7ff\U0010ffff", "x" * 300, PROMPT]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _some(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


_GENERATING = {
    "stream": st.booleans(),
    "max_tokens": st.integers(1, 9),
    "temperature": st.floats(0, 2),
    "top_p": st.sampled_from([0.5, 1]),
    "top_k": st.integers(0, 5),
    "stop": st.sampled_from(["a", ["a", "b"]]),
    "user": TEXTS,
    "n": st.just(1),
}
_MESSAGES = st.lists(
    _some({"role": st.sampled_from(["user", "system", "assistant", "developer"]), "content": TEXTS}, {"name": TEXTS}),
    min_size=1,
    max_size=3,
)
_TENSOR = st.sampled_from(
    [
        {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2.5]},
        {"name": "x", "datatype": "INT64", "shape": [1], "data": [7]},
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": [PROMPT]},
        {"name": "x", "datatype": "BOOL", "shape": [1, 1], "data": [[True]]},
    ]
)
_INPUT = st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), st.just([1, 2, 3]))
_BODIES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/chat/completions": _some({"model": names("echo"), "messages": _MESSAGES}, _GENERATING),
    "/v1/completions": _some({"model": names("echo"), "prompt": TEXTS | st.just([1, 2])}, _GENERATING),
    "/v1/embeddings": _some(
        {"model": names("embed"), "input": _INPUT},
        {"encoding_format": st.sampled_from(["float", "base64"]), "dimensions": st.integers(1, 2)},
    ),
    "/v1/rerank": _some(
        {"model": names("rerank"), "query": TEXTS, "documents": st.lists(TEXTS, min_size=1, max_size=3)},
        {"top_n": st.integers(0, 3), "return_documents": st.booleans()},
    ),
    "/v1/score": _some({"model": names("rerank"), "text_1": TEXTS, "text_2": _INPUT}, {}),
    "/v1/classify": _some({"model": names("classify"), "input": _INPUT}, {"softmax": st.just(True)}),
}
_INFER = _some({"inputs": st.lists(_TENSOR, min_size=1, max_size=2)}, {"id": TEXTS, "outputs": st.just([])})
_PATHS = ("/v1/models", "/v1/nothing", "/healthz", "/v2", "/v2/health/ready", "/metrics", "/docs", "/", "/v2/models/")


@st.composite
def changed(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> Any:
    """A body of which up to three places are replaced, taken out, wrapped, renamed or added to."""
    body = copy.deepcopy(draw(bodies))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        holder = body
        while isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and holder[key] and draw(st.booleans()):
                holder = holder[key]
                continue
            _change(draw, holder, key)
            break
    return body


def _change(draw: st.DrawFn, holder: Any, key: Any) -> None:
    kind = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "add"]))
    if kind == "replace":
        holder[key] = draw(VALUES)
    elif kind == "wrap":
        holder[key] = [holder[key]]
    elif kind == "remove":
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from(["tools", "Model", "model ", "", "metadata", "logprobs"]))] = draw(VALUES)


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """A value as JSON, or as something near to it."""
    value = draw(values)
    plain = json.dumps(value).encode()
    how = draw(st.sampled_from(["compact"] * 20 + ["spaced"] * 10 + list(_NEARLY)))
    if how == "spaced":
        return plain
    if how != "compact":
        return _NEARLY[how](draw, plain)
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return plain


def _cut(draw: st.DrawFn, plain: bytes) -> bytes:
    return plain[: draw(st.integers(0, len(plain)))]


def _splice(draw: st.DrawFn, plain: bytes) -> bytes:
    at = draw(st.integers(0, len(plain)))
    return plain[:at] + draw(st.binary(min_size=1, max_size=4)) + plain[at:]


_NEARLY: dict[str, Any] = {
    "cut": _cut,
    "spliced": _splice,
    "twice": lambda _, plain: plain[:-1] + b"," + plain[1:] if plain[:1] == b"{" else plain * 2,
    "utf-16": lambda _, plain: plain.decode().encode("utf-16"),
    "marked": lambda _, plain: b"\xef\xbb\xbf" + plain,
    "nan": lambda _, plain: plain.replace(b"1", b"NaN").replace(b"true", b"Infinity"),
    "surrogate": lambda _, plain: plain.replace(PROMPT.encode(), b"\\ud800"),
    "deep": lambda _, plain: b'{"metadata":' + b"[" * 2000 + plain,
    "long": lambda _, plain: plain + b" " * MAX_BODY_BYTES,
    "bytes": lambda draw, _: draw(st.binary(max_size=60)),
    "empty": lambda *_: b"",
    "form": lambda *_: b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\necho\r\n--x--\r\n',
}


@st.composite
def requests(draw: st.DrawFn) -> GeneratedRequest:
    kind = draw(st.sampled_from([*_BODIES, *_BODIES, "infer", "infer", "metadata", "page"]))
    method, target = "POST", kind.encode()
    if kind in _BODIES:
        body = draw(written(changed(_BODIES[kind])))
    elif kind == "infer":
        target = b"/v2/models/" + draw(_path_names()) + draw(st.sampled_from([b"", b"/versions/1"])) + b"/infer"
        body = draw(written(changed(_INFER)))
    else:
        body, method = b"", "GET"
        if kind == "metadata":
            ends = st.sampled_from([b"", b"/ready", b"/versions/1", b"/versions/2/ready"])
            target = draw(st.sampled_from([b"/v2/models/", b"/v1/models/"])) + draw(_path_names()) + draw(ends)
        else:
            target = draw(st.sampled_from(_PATHS)).encode()
    method = draw(st.sampled_from([method] * 60 + ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"]))
    target = draw(st.sampled_from([target] * 50 + [target + end for end in (b"/", b"?a=b", b"%00", b"%2f", b";x")]))
    return GeneratedRequest(method, target, draw(_fields()), body, draw(st.sampled_from([False, False, False, True])))


def _path_names() -> st.SearchStrategy[bytes]:
    """Percent-encoded; some with their slash as it is."""
    safe = st.sampled_from(["", "/"])
    return st.builds(
        lambda name, plain: quote_from_bytes(name.encode(), plain).encode(), names("tensor", "embed"), safe
    )


_RIGHT_KEY = ((b"authorization", b"Bearer " + KEYS["search"].encode()),)
_ADS_KEY = ((b"authorization", b"Bearer " + KEYS["ads"].encode()),)
_KEYS = (
    *[_ADS_KEY] * 4,
    ((b"x-api-key", KEYS["search"].encode()),),
    ((b"Authorization", b"bearer  " + KEYS["search"].encode()),),
    (),
    ((b"authorization", b"Bearer " + WRONG_KEY.encode()),),
    ((b"authorization", b"Basic " + WRONG_KEY.encode()),),
    ((b"authorization", b"Bearer"),),
    ((b"authorization", b"Bearer " + WRONG_KEY.encode() * 600),),
    ((b"authorization", b"Bearer \xff\xfe"),),
    (*_RIGHT_KEY, (b"x-api-key", WRONG_KEY.encode())),
    (*_RIGHT_KEY, (b"authorization", b"Bearer " + WRONG_KEY.encode())),
)
_TYPES = (
    b"application/json",
    b"application/json; charset=utf-8",
    b"application/json; charset=utf-16",
    b"APPLICATION/JSON",
    b"text/plain",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"application/octet-stream",
    b"image/png",
    b"",
    b"application/json, text/html",
)
_OTHERS = (
    (b"x-cotenant-model", FIELD.encode()),
    (b"x-cotenant-instance", FIELD.encode()),
    (b"x-request-id", FIELD.encode()),
    (b"x-request-id", b"\xff" * 90),
    (b"x-forwarded-for", FIELD.encode()),
    (b"forwarded", b"for=" + FIELD.encode()),
    (b"cookie", FIELD.encode() * 100),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"traceparent", FIELD.encode()),
    (b"content-encoding", b"gzip"),
    (b"content-encoding", b"identity"),
    (b"inference-header-content-length", b"5"),
    (b"inference-header-content-length", b"-1"),
    (b"inference-header-content-length", b"9" * 30),
    (b"accept", b"image/png"),
    (b"accept-encoding", b"gzip, br"),
    (b"range", b"bytes=0-1"),
    (b"te", b"trailers"),
    (b"connection", b"close"),
    (b"expect", b"100-continue"),
)


@st.composite
def _fields(draw: st.DrawFn) -> tuple[tuple[bytes, bytes], ...]:
    keys = draw(st.sampled_from([_RIGHT_KEY] * 30 + list(_KEYS)))
    types = draw(st.sampled_from([b"application/json"] * 8 + list(_TYPES)))
    others = draw(st.sampled_from([()] * 20 + [(field,) for field in _OTHERS]))
    return (*keys, (b"content-type", types), *others)
