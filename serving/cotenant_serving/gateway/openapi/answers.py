"""JSON Schemas of answers and errors."""

from typing import Any

from cotenant_serving.gateway.openapi.requests import Schema

STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}


def answer_schemas() -> dict[str, Schema]:
    """Name of a component → schema."""
    return {
        "Error": _object(
            error=_object(message=STRING, type=STRING, param=_or_null(STRING), code=_or_null(STRING)),
        ),
        "OipError": _object(error=STRING),
        "Model": _object(id=STRING, object={"const": "model"}, created=COUNT, owned_by=STRING),
        "Models": _list({"$ref": "#/components/schemas/Model"}),
        "ChatCompletion": _generated(
            "chat.completion", message=_object(role={"const": "assistant"}, content=_or_null(STRING))
        ),
        "Completion": _generated("text_completion", text=STRING),
        "Embeddings": _list(
            _object(
                object={"const": "embedding"},
                index=COUNT,
                embedding={"anyOf": [{"type": "array", "items": NUMBER}, {**STRING, "description": "base64"}]},
            ),
            model=STRING,
            usage=_usage(),
        ),
        "Rerank": _object(id=STRING, model=STRING, usage=_usage(), results=_array(_reranked())),
        "Score": _listed(_object(index=COUNT, object={"const": "score"}, score=NUMBER)),
        "Classify": _listed(_object(index=COUNT, label=STRING, probs=_array(NUMBER), num_classes=COUNT)),
        "InferAnswer": _infer_answer(),
        "ModelMetadata": _object(
            name=STRING,
            versions=_array(STRING),
            platform=STRING,
            inputs=_array(_described()),
            outputs=_array(_described()),
        ),
        "ModelReady": _object(name=STRING, ready={"const": True}),
        "ModelUnready": _object(name=STRING, ready={"const": False}, error=STRING),
        "Server": _object(name=STRING, version=STRING, extensions=_array(STRING)),
        "Readiness": _object(ready={"type": "boolean"}, reason=STRING),
        "Health": _object(status={"const": "ok"}),
        "Live": _object(live={"const": True}),
    }


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _usage(**more: Schema) -> Schema:
    return _object(prompt_tokens=COUNT, total_tokens=COUNT, **more)


def _list(item: Schema, **more: Schema) -> Schema:
    return _object(object={"const": "list"}, data=_array(item), **more)


def _listed(item: Schema) -> Schema:
    return _list(item, id=STRING, created=COUNT, model=STRING, usage=_usage())


def _generated(kind: str, **content: Schema) -> Schema:
    choice = _object(index=COUNT, finish_reason={"enum": ["stop", "length"]}, **content)
    usage = _usage(completion_tokens=COUNT)
    return _object(
        id=STRING, object={"const": kind}, created=COUNT, model=STRING, choices=_array(choice), usage=usage
    )


def _reranked() -> Schema:
    reranked = _object(index=COUNT, relevance_score=NUMBER)
    reranked["properties"]["document"] = _object(text=STRING)
    return reranked


def _described() -> Schema:
    return _object(name=STRING, datatype=STRING, shape=_array({"type": "integer", "minimum": -1}))


def _infer_answer() -> Schema:
    output: dict[str, Any] = _described()
    output["properties"]["data"] = {"type": "array"}
    output["properties"]["parameters"] = _object(binary_data_size=COUNT)
    answer = _object(model_name=STRING, model_version=STRING, outputs=_array(output))
    answer["properties"]["id"] = STRING
    return answer
