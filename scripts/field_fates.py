"""What each route does with each field of a body: the parsers themselves are asked, field by field."""

import ast
import json
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cotenant_serving import openai_api, pooling_api
from cotenant_serving.request_fields import RequestError

_LEAST_BODIES: Mapping[str, tuple[Callable[[bytes], object], dict[str, object]]] = {
    "/v1/chat/completions": (openai_api.parse_chat, {"messages": [{"role": "user", "content": "Hi"}]}),
    "/v1/completions": (openai_api.parse_completion, {"prompt": "Hi"}),
    "/v1/embeddings": (pooling_api.parse_embeddings, {"input": "Hi"}),
    "/v1/rerank": (pooling_api.parse_rerank, {"query": "Hi", "documents": ["Ho"]}),
    "/v1/score": (pooling_api.parse_score, {"text_1": "Hi", "text_2": "Ho"}),
    "/v1/classify": (pooling_api.parse_classify, {"input": "Hi"}),
}
_STRANGE: Sequence[object] = ("x", -7.5, [[]], {"x": 1}, True)
_NEUTRAL: Sequence[object] = (
    *(0, 1, True, False),
    *("none", "right", "float32", "native", "little"),
    *([], {}, {"type": "text"}, ["text"]),
)
"""Values that could change nothing. Python holds true for 1 and false for 0, so those are shown once."""


def request_fields() -> list[tuple[str, ...]]:
    """Each route and what it does with the fields that it or OpenAI's own client knows."""
    rows = []
    for route, (parse, least) in _LEAST_BODIES.items():
        official = _official_fields(route)
        fates: dict[str, list[str]] = {"served": [], "ignored": [], "neutral": [], "refused": []}
        for name in sorted(official | _words(parse)):
            fate, accepted = _fate(parse, least, name)
            if fate != "refused" or name in official:
                fates[fate].append(f"`{name}`" + (f" ({' or '.join(accepted)})" if accepted else ""))
        for fate, words in _FATES.items():
            if fates[fate]:
                rows.append((f"`{route}`", ", ".join(fates[fate]), words))
    return rows


_FATES = {
    "served": "served",
    "ignored": "accepted, no effect",
    "neutral": "accepted with the value that changes nothing, else 400 `unsupported_parameter`",
    "refused": "400 `unsupported_parameter`",
}


def _fate(parse: Callable[[bytes], object], least: Mapping[str, object], name: str) -> tuple[str, list[str]]:
    """(served, ignored, neutral or refused; the values that are accepted if neutral)."""
    answers = [_code(parse, {**least, name: value}) for value in _STRANGE]
    if any(code not in ("", "unsupported_parameter") for code in answers):
        return "served", []
    if not any(answers):
        return "ignored", []
    accepted: list[object] = []
    for value in _NEUTRAL:
        if value not in accepted and not _code(parse, {**least, name: value}):
            accepted.append(value)
    return ("neutral", [f"`{json.dumps(value)}`" for value in accepted]) if accepted else ("refused", [])


def _code(parse: Callable[[bytes], object], body: Mapping[str, object]) -> str:
    """The code of the error that the body is answered with; empty when it is accepted."""
    try:
        parse(json.dumps({"model": "m", **body}).encode())
    except RequestError as problem:
        return problem.code or "invalid_value"
    return ""


def _words(parse: Callable[[bytes], object]) -> set[str]:
    """Every string in the parser's module that could be a field."""
    source = Path(sys.modules[parse.__module__].__file__ or "").read_text()
    strings = {str(getattr(node, "value", None)) for node in ast.walk(ast.parse(source))}
    return {word for word in strings if re.fullmatch(r"[a-z][a-z0-9_]*", word)}


def _official_fields(route: str) -> set[str]:
    from openai.types import completion_create_params, embedding_create_params
    from openai.types.chat import completion_create_params as chat_create_params

    known: dict[str, type] = {
        "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
        "/v1/completions": completion_create_params.CompletionCreateParamsBase,
        "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
    }
    return set(typing.get_type_hints(known[route])) if route in known else set()
