"""Embeddings, rerank, score and classify: OpenAI's and vLLM's wire shapes, both ways. Pure.

The `parse_` functions check a body once and raise `RequestError` (400) that names the field, with its index. The
gateway calls them before it wakes an engine; the engine calls them for the typed values. The `_answer` functions
make the bodies of answers. Whether a text fits the model only the engine can tell.
"""

import base64
import itertools
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from cotenant_serving.request_fields import (
    MAX_INTEGER,
    RequestError,
    boolean,
    integer,
    json_object,
    model_name,
    refuse_unknown,
    whole,
    wrong,
)

MAX_INPUTS = 2048
"""Texts, documents or pairs of one request."""
MAX_INPUT_TOKENS = 1 << 20
"""Token ids of one request, over all its inputs."""
MAX_PAIR_CHARS = 1 << 22
"""Of all pairs of one request; a text that stands in several pairs counts in each."""

Input = str | tuple[int, ...]
EncodingFormat = Literal["float", "base64"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequest:
    """What all have in common.

    `truncate_prompt_tokens`: None refuses what does not fit the model (400), -1 keeps as many of the first tokens as
    the model takes, k keeps the first k.
    """

    model: str
    truncate_prompt_tokens: int | None = None

    @property
    def repeated_chars(self) -> int:
        """Characters that are computed in addition to those that the body has."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest(PoolingRequest):
    """`inputs` are texts or token ids. `dimensions` None is all that the model has."""

    inputs: tuple[Input, ...]
    listed: bool
    """Whether `input` was an array of inputs."""
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None

    def name_of(self, index: int) -> str:
        """The field of an input, for errors: `input` or `input[3]`."""
        return f"input[{index}]" if self.listed else "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest(PoolingRequest):
    """`inputs` are texts or token ids."""

    inputs: tuple[Input, ...]
    listed: bool

    def name_of(self, index: int) -> str:
        return f"input[{index}]" if self.listed else "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest(PoolingRequest):
    """`top_n` None is all of them."""

    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    return_documents: bool = True

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple((self.query, document) for document in self.documents)

    @property
    def repeated_chars(self) -> int:
        return len(self.query) * (len(self.documents) - 1)

    def name_of(self, index: int) -> str:
        return f"documents[{index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest(PoolingRequest):
    pairs: tuple[tuple[str, str], ...]
    second: str = "text_2"
    """The field that the second texts came in."""
    listed: bool = True
    repeated_chars: int = 0

    def name_of(self, index: int) -> str:
        return f"{self.second}[{index}]" if self.listed else self.second


def parse_embeddings(body: bytes) -> EmbedRequest:
    """Body of POST /v1/embeddings → request."""
    fields = json_object(body)
    _refuse(fields, "input", "encoding_format", "dimensions")
    inputs, listed = _inputs(fields.get("input"))
    return EmbedRequest(
        **_common(fields),
        inputs=inputs,
        listed=listed,
        encoding_format=_encoding_format(fields.get("encoding_format")),
        dimensions=integer(fields, "dimensions", low=1),
    )


def parse_classify(body: bytes) -> ClassifyRequest:
    """Body of POST /v1/classify → request."""
    fields = json_object(body)
    _refuse(fields, "input")
    inputs, listed = _inputs(fields.get("input"))
    return ClassifyRequest(**_common(fields), inputs=inputs, listed=listed)


def parse_rerank(body: bytes) -> RerankRequest:
    """Body of POST /v1/rerank → request. A document is a text or `{"text": "…"}`."""
    fields = json_object(body)
    _refuse(fields, "query", "documents", "top_n", "return_documents")
    documents = fields.get("documents")
    if isinstance(documents, list):
        documents = [_document(item, f"documents[{index}]") for index, item in enumerate(documents)]
    request = RerankRequest(
        **_common(fields),
        query=_text(fields.get("query"), "query"),
        documents=_texts(documents, "documents"),
        top_n=integer(fields, "top_n", low=0) or None,
        return_documents=boolean(fields, "return_documents", default=True),
    )
    _check_pairs(request.pairs, "documents")
    return request


def parse_score(body: bytes) -> ScoreRequest:
    """Body of POST /v1/score → request: one text with each of N, or N with N.

    The two sides are called `text_1` and `text_2`, `data_1` and `data_2`, `queries` and `documents`, or `queries`
    and `items`: vLLM takes all four.
    """
    fields = json_object(body)
    first, second = next((names for names in SIDES if names[1] in fields), SIDES[0])
    _refuse(fields, first, second)
    listed = isinstance(fields.get(second), list)
    ones, twos = (_texts_or_text(fields.get(name), name) for name in (first, second))
    if len(ones) not in (1, len(twos)):
        raise RequestError(
            400,
            f"'{first}' has {len(ones)} texts and '{second}' {len(twos)}. Send one and any number, or equally many.",
            param=first,
            code="invalid_value",
        )
    pairs = tuple(zip(itertools.cycle(ones) if len(ones) == 1 else ones, twos, strict=False))
    _check_pairs(pairs, second)
    repeated = len(ones[0]) * (len(pairs) - len(ones))
    return ScoreRequest(**_common(fields), pairs=pairs, second=second, listed=listed, repeated_chars=repeated)


def embeddings_answer(request: EmbedRequest, vectors: Sequence[Any], prompt_tokens: int) -> bytes:
    """Body of the answer. A vector is a one-dimensional float32 array: numpy's, or `array("f")`."""
    encode = _base64 if request.encoding_format == "base64" else _as_is
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)
    ]
    return _json({"object": "list", "data": data, "model": request.model, "usage": _usage(prompt_tokens)})


def rerank_answer(request: RerankRequest, scores: Sequence[float], prompt_tokens: int, request_id: str) -> bytes:
    """Body of the answer; `scores` are in the order of the documents."""
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
    results = []
    for index in best:
        document = {"document": {"text": request.documents[index]}} if request.return_documents else {}
        results.append({"index": index, **document, "relevance_score": scores[index]})
    head = {"id": f"rerank-{request_id}", "model": request.model, "usage": _usage(prompt_tokens)}
    return _json({**head, "results": results})


def score_answer(
    request: ScoreRequest, scores: Sequence[float], prompt_tokens: int, request_id: str, created: int
) -> bytes:
    """Body of the answer; `scores` are in the order of the pairs. `created` is unix seconds."""
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    return _list_of(data, f"score-{request_id}", request.model, prompt_tokens, created)


def classify_answer(
    request: ClassifyRequest,
    classes: Sequence[tuple[str, Sequence[float]]],
    prompt_tokens: int,
    request_id: str,
    created: int,
) -> bytes:
    """Body of the answer; `classes` are (label of the likeliest class, probabilities of all), one for each input."""
    data = [
        {"index": index, "label": label, "probs": probabilities, "num_classes": len(probabilities)}
        for index, (label, probabilities) in enumerate(classes)
    ]
    return _list_of(data, f"classify-{request_id}", request.model, prompt_tokens, created)


# The two sides of a score, by the names that vLLM has had for them. The second tells which.
SIDES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))
_COMMON = frozenset({"model", "truncate_prompt_tokens"})
IGNORED = frozenset({"user", "metadata", "safety_identifier", "request_id"})
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "add_special_tokens": (True,),
    "priority": (0,),
    "use_activation": (True,),
    "activation": (True,),
    "softmax": (True,),
    "truncation_side": ("right",),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
}


def _refuse(fields: Mapping[str, Any], *own: str) -> None:
    refuse_unknown(fields, _COMMON | set(own), ignored=IGNORED, neutral=NEUTRAL)


def _common(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": model_name(fields.get("model")),
        "truncate_prompt_tokens": truncate_tokens(fields.get("truncate_prompt_tokens")),
    }


def truncate_tokens(value: Any, shown: str = "truncate_prompt_tokens") -> int | None:
    if value is None:
        return None
    found = whole(value)
    if found is None or found < -1 or found == 0:
        raise wrong(shown, value, "-1 (the model's maximum) or an integer of at least 1", "")
    return found


def _encoding_format(value: Any) -> EncodingFormat:
    if value not in (None, "float", "base64"):
        raise wrong("encoding_format", value, 'one of "float", "base64"', "")
    return value or "float"


def _inputs(value: Any) -> tuple[tuple[Input, ...], bool]:
    """(inputs, whether they came as an array of inputs). An array of integers is one input."""
    if isinstance(value, str):
        return (_text(value, "input"),), False
    if not isinstance(value, list) or not value:
        raise wrong("input", value, "a text, an array of token ids, or an array of either", "")
    if isinstance(value[0], list):
        return _token_inputs(value), True
    if isinstance(value[0], str):
        return _texts(value, "input"), True
    return (_tokens(value, "input"),), False


def _token_inputs(values: list[Any]) -> tuple[Input, ...]:
    _check_count(values, "input")
    inputs = []
    left = MAX_INPUT_TOKENS
    for index, value in enumerate(values):
        if not isinstance(value, list) or not value:
            raise wrong(f"input[{index}]", value, "an array of token ids, as the first input is", "")
        left -= len(value)
        if left < 0:
            raise wrong("input", "longer", f"at most {MAX_INPUT_TOKENS} token ids in all", "send several requests")
        inputs.append(_tokens(value, f"input[{index}]"))
    return tuple(inputs)


def _tokens(values: list[Any], where: str) -> tuple[int, ...]:
    if len(values) > MAX_INPUT_TOKENS:
        raise wrong(where, f"{len(values)} token ids", f"at most {MAX_INPUT_TOKENS}", "")
    if set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= MAX_INTEGER:
        return tuple(values)
    return tuple(_token(value, f"{where}[{index}]") for index, value in enumerate(values))


def _token(value: Any, where: str) -> int:
    found = whole(value)
    if found is None or found < 0:
        raise wrong(where, value, "a token id (an integer of at least 0), as the others", "")
    return found


def _texts_or_text(value: Any, where: str) -> tuple[str, ...]:
    return (_text(value, where),) if isinstance(value, str) else _texts(value, where)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise wrong(where, value, "a non-empty array of texts", "")
    _check_count(value, where)
    return tuple(_text(item, f"{where}[{index}]") for index, item in enumerate(value))


def _check_count(values: list[Any], where: str) -> None:
    if len(values) > MAX_INPUTS:
        raise wrong(where, f"an array of {len(values)}", f"an array of at most {MAX_INPUTS}", "send several requests")


def _check_pairs(pairs: Sequence[tuple[str, str]], where: str) -> None:
    chars = sum(len(first) + len(second) for first, second in pairs)
    if chars > MAX_PAIR_CHARS:
        given = f"{len(pairs)} texts that make pairs of {chars} characters in all"
        raise wrong(
            where, given, f"at most {MAX_PAIR_CHARS} characters, both texts of each pair counted", "send less"
        )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise wrong(where, value, "a text that is not empty", "")
    return value


def _document(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return value
    refuse_unknown(value, frozenset({"text"}), prefix=f"{where}.")
    return _text(value.get("text"), f"{where}.text")


def _as_is(vector: Any) -> Any:
    return vector


def _base64(vector: Any) -> str:
    """Of little-endian float32, which is what every machine that torch runs on has in memory."""
    return base64.b64encode(memoryview(vector)).decode("ascii")


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}


def _list_of(data: list[dict[str, Any]], id_: str, model: str, prompt_tokens: int, created: int) -> bytes:
    head = {"id": id_, "object": "list", "created": created, "model": model}
    return _json({**head, "data": data, "usage": _usage(prompt_tokens)})


def _json(value: Any) -> bytes:
    # numpy's float32 are written with the fewest digits that read back the same.
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, array):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
