"""JSON Schemas of request bodies. What a schema cannot say stands in its description."""

from collections.abc import Mapping, Sequence
from typing import Any

from cotenant_serving import oip_api, openai_api, pooling_api
from cotenant_serving.oip_data import DATATYPES
from cotenant_serving.request_fields import MAX_INTEGER, MAX_MODEL_CHARS

Schema = dict[str, Any]

PAIRS = f"All pairs have at most {pooling_api.MAX_PAIR_CHARS} characters, both texts of each counted."

NULL: Schema = {"type": "null"}
ANY: Schema = {"description": "Accepted, without effect."}
TEXT: Schema = {"type": "string", "minLength": 1}
TOKENS: Schema = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
    "minItems": 1,
    "maxItems": pooling_api.MAX_INPUT_TOKENS,
    "description": "Token ids.",
}


def request_schemas() -> dict[str, Schema]:
    """Name of a component → schema."""
    return {
        "ChatRequest": _generate({"messages": _messages()}),
        "CompletionRequest": _generate({"prompt": _prompt()}),
        "EmbeddingsRequest": _pooling({"input": _input()}, _embedding_options()),
        "RerankRequest": _pooling({"query": TEXT, "documents": _documents()}, _rerank_options()),
        "ScoreRequest": {
            "description": "One text with each of N, or N with N. vLLM's other names of the two sides are taken. "
            + PAIRS,
            "anyOf": [_pooling({first: _texts(), second: _texts()}, {}) for first, second in pooling_api.SIDES],
        },
        "ClassifyRequest": _pooling({"input": _input()}, {}),
        "InferRequest": _infer(),
    }


def closed(required: Mapping[str, Schema], optional: Mapping[str, Schema], **more: Any) -> Schema:
    """An object without other fields; null stands for a field that is absent."""
    return {
        "type": "object",
        "properties": {**required, **{name: _or_null(schema) for name, schema in optional.items()}},
        "required": [*required],
        "additionalProperties": NULL,
        **more,
    }


def _or_null(schema: Schema) -> Schema:
    if schema is ANY:
        return schema
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {"anyOf": [schema, NULL]}


def _integer(low: int, description: str) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": MAX_INTEGER, "description": description}


def _model() -> Schema:
    return {**TEXT, "maxLength": MAX_MODEL_CHARS, "description": "`name`, or `namespace/name`."}


def _without_effect(ignored: frozenset[str], neutral: Mapping[str, Sequence[Any]]) -> dict[str, Schema]:
    only = {
        name: {"enum": [*values], "description": "Only with what changes nothing."}
        for name, values in neutral.items()
    }
    return {**only, **dict.fromkeys(sorted(ignored), ANY)}


def _generate(required: Mapping[str, Schema]) -> Schema:
    stop: Schema = {"type": "string", "minLength": 1, "maxLength": openai_api.MAX_STOP_CHARS}
    served: dict[str, Schema] = {
        "stream": {"type": "boolean", "description": "Answer with server-sent events."},
        "stream_options": {
            **closed({}, {"include_usage": {"type": "boolean"}, "include_obfuscation": {"enum": [False]}}),
            "description": "Only with `stream`.",
        },
        "max_tokens": _integer(1, "Up to the end of the context if absent."),
        "max_completion_tokens": _integer(1, "The newer name of `max_tokens`; they may not differ."),
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "description": "0 is greedy. Default 1."},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "top_k": _integer(0, "0 is off."),
        "stop": {"anyOf": [stop, {"type": "array", "items": stop, "maxItems": openai_api.MAX_STOP}]},
    }
    optional = {**served, **_without_effect(openai_api.IGNORED, openai_api.NEUTRAL)}
    return closed({"model": _model(), **required}, optional)


def _messages() -> Schema:
    part = {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    }
    message = {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": part, "minItems": 1}]},
            **dict.fromkeys(openai_api.IGNORED_OF_MESSAGES, ANY),
        },
        "required": ["role", "content"],
        "additionalProperties": {"enum": [None, False, 0, "", [], {}], "description": "Nothing that would count."},
    }
    return {"type": "array", "items": message, "minItems": 1, "maxItems": openai_api.MAX_MESSAGES}


def _prompt() -> Schema:
    ids = {name: value for name, value in TOKENS.items() if name != "maxItems"}
    alone = {"type": "array", "items": {"anyOf": [{"type": "string"}, ids]}, "minItems": 1, "maxItems": 1}
    return {
        "anyOf": [{"type": "string"}, ids, {**alone, "description": "One prompt for each request."}],
        "examples": ["Once"],
    }


def _pooling(required: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    truncate = {
        "anyOf": [{"const": -1}, _integer(1, "Keep the first so many tokens.")],
        "description": "Absent: a text that the model does not take is refused. -1: as many tokens as it takes.",
    }
    without = _without_effect(pooling_api.IGNORED, pooling_api.NEUTRAL)
    return closed({"model": _model(), **required}, {**optional, "truncate_prompt_tokens": truncate, **without})


def _several(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": pooling_api.MAX_INPUTS}


def _texts() -> Schema:
    return {"anyOf": [TEXT, _several(TEXT)]}


def _input() -> Schema:
    return {
        "anyOf": [TEXT, _several(TEXT), TOKENS, _several(TOKENS)],
        "description": f"At most {pooling_api.MAX_INPUT_TOKENS} token ids in all.",
    }


def _documents() -> Schema:
    return {**_several({"anyOf": [TEXT, closed({"text": TEXT}, {})]}), "description": PAIRS}


def _embedding_options() -> dict[str, Schema]:
    return {
        "encoding_format": {"enum": ["float", "base64"], "description": "base64: little-endian float32."},
        "dimensions": _integer(1, "Where the model allows it."),
    }


def _rerank_options() -> dict[str, Schema]:
    return {
        "top_n": _integer(0, "0 is all of them."),
        "return_documents": {"type": "boolean", "description": "Default true."},
    }


def _infer() -> Schema:
    name: Schema = {**TEXT, "maxLength": oip_api.MAX_NAME_CHARS}
    scalars: Schema = {"type": ["boolean", "number", "string", "array", "null"]}
    tensor = closed(
        {
            "name": name,
            "datatype": {"enum": [*DATATYPES]},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "maxItems": oip_api.MAX_RANK,
            },
        },
        {
            "data": {"type": "array", "items": scalars, "description": "Flat, or nested as `shape`; row-major."},
            "parameters": closed({}, {"binary_data_size": _integer(0, "Bytes of this tensor after the JSON.")}),
        },
        description="Its elements stand in `data`, or in binary after the JSON.",
    )
    output = closed({"name": name}, {"parameters": closed({}, {"binary_data": {"type": "boolean"}})})
    parameters: dict[str, Schema] = {
        "binary_data_output": {"type": "boolean", "description": "All outputs in binary, unless one says otherwise."},
        "truncate_prompt_tokens": {"anyOf": [{"const": -1}, _integer(1, "As in /v1/embeddings.")]},
        "dimensions": _integer(1, "As in /v1/embeddings."),
    }
    many = {"type": "array", "maxItems": oip_api.MAX_TENSORS}
    return closed(
        {"inputs": {**many, "items": tensor, "minItems": 1}},
        {
            "id": {"type": "string", "maxLength": oip_api.MAX_NAME_CHARS},
            "outputs": {**many, "items": output, "description": "All of them if absent. Names may not repeat."},
            "parameters": closed({}, parameters),
        },
        description="Names may not repeat. `shape` and `datatype` decide how many and which elements `data` has.",
    )
