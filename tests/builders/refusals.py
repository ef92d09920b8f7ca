"""Which generated requests no gateway may serve, judged from their bytes with nothing of what is tested.

What is not sure is not claimed: a request without a reason here may still be refused.
"""

import json
from collections.abc import Iterable
from typing import Any

from tests.builders.gateway import KEYS
from tests.builders.generated_requests import MAX_BODY_BYTES, GeneratedRequest

REQUIRED = {
    b"/v1/chat/completions": ("model", "messages"),
    b"/v1/completions": ("model", "prompt"),
    b"/v1/embeddings": ("model", "input"),
    b"/v1/rerank": ("model", "query", "documents"),
    b"/v1/score": ("model", "text_1", "text_2"),
    b"/v1/classify": ("model", "input"),
}
_LISTS = ("messages", "documents", "inputs")
_STRANGE_ENDS = (b"%00", b"%2f", b";x")


def reason_to_refuse(request: GeneratedRequest) -> str | None:
    """Why it must get an error and reach no engine; None where it may be served."""
    path = request.target.partition(b"?")[0]
    if path not in REQUIRED and not path.rstrip(b"/").endswith(b"/infer"):
        asks = path.startswith(tuple(REQUIRED)) or b"/infer" in path
        return "the path is none" if asks and path.endswith(_STRANGE_ENDS) else None
    return next(iter(_reasons(request, REQUIRED.get(path, ("inputs",)))), None)


def _reasons(request: GeneratedRequest, required: tuple[str, ...]) -> Iterable[str]:
    if request.method != "POST":
        yield "the method is another"
    if not _shows_one_right_key(request):
        yield "the key is not right"
    for name, value in request.fields:
        if name == b"content-encoding" and value != b"identity":
            yield "the body is encoded"
        if name == b"content-type" and (value.startswith(b"multipart/") or b"utf-16" in value):
            yield "the body is of another type"
    if any(name == b"inference-header-content-length" for name, _ in request.fields):
        return  # what of the body is JSON is another question
    if len(request.body) > MAX_BODY_BYTES:
        yield "the body is too long"
    try:
        fields = _strict_json(request.body)
    except (ValueError, RecursionError) as problem:
        yield f"the body is no strict JSON: {problem}"
    else:
        yield from _wrong_fields(fields, required)


def _shows_one_right_key(request: GeneratedRequest) -> bool:
    shown = {
        value.split()[-1].decode("latin-1")
        for name, value in request.fields
        if name.lower() in (b"authorization", b"x-api-key")
    }
    return len(shown) == 1 and shown <= set(KEYS.values())


def _strict_json(body: bytes) -> Any:
    """Raises ValueError or RecursionError where two readers could see two things."""
    value = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError: half a surrogate pair
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _wrong_fields(fields: Any, required: tuple[str, ...]) -> Iterable[str]:
    if not isinstance(fields, dict):
        yield "the body is no object"
        return
    for name in required:
        value = fields.get(name)
        if value is None:
            yield f"{name} is missing"
        elif name in _LISTS and not (isinstance(value, list) and value):
            yield f"{name} is no list with anything in it"
        elif name == "model" and not isinstance(value, str):
            yield "model is no text"
    if "stream" in fields and not isinstance(fields["stream"], bool | None):
        yield "stream is no boolean"
    if fields.get("Model") is not None or fields.get("model ") is not None:
        yield "a field is none of the API"
