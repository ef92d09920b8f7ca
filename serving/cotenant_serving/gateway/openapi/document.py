"""The document itself: what each operation takes and what it may answer."""

from collections.abc import Iterable
from typing import Any

from cotenant_serving import oip_api
from cotenant_serving.contract import HEADER_JSON_LENGTH
from cotenant_serving.gateway.errors import ERRORS, speaks_oip
from cotenant_serving.gateway.openapi.answers import answer_schemas
from cotenant_serving.gateway.openapi.operations import BINARY, ENGINE_STATUSES, JSON, OPERATIONS, STREAM, Operation
from cotenant_serving.gateway.openapi.requests import Schema, request_schemas


def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cotenant gateway",
            "version": version,
            "description": "OpenAI's API, vLLM's for rerank, score and classify, and the Open Inference Protocol, "
            "over GPUs that many tenants share. Fields that are not described are refused.",
        },
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": {**request_schemas(), **answer_schemas()},
            "responses": _error_responses(),
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _id(operation),
        "tags": [operation.tag],
        "security": [{"bearer": []}, {"x-api-key": []}] if 401 in operation.statuses else [],
        "responses": {"200": _answer(operation)}
        | {str(status): _error(operation, status) for status in operation.statuses},
    }
    parameters = [_path_parameter(name) for name in ("model", "version") if f"{{{name}}}" in operation.path]
    if operation.request == "InferRequest":
        parameters.append(_length_parameter())
    if parameters:
        described["parameters"] = parameters
    if operation.request:
        described["requestBody"] = _body(operation)
    return described


def _id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "_".join([operation.method, *(word for word in words if word)])


def _body(operation: Operation) -> dict[str, Any]:
    example = dict(operation.example) if speaks_oip(operation.path) else {"model": "MODEL", **operation.example}
    content: dict[str, Any] = {JSON: {"schema": _ref(operation.request), "example": example}}
    if BINARY in operation.media:
        words = f"The JSON, of which `{HEADER_JSON_LENGTH}` says the length, then the binary tensors."
        content[BINARY] = {"schema": {"type": "string", "format": "binary", "description": words}}
    return {"required": True, "content": content}


def _answer(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media in operation.media:
        if media == JSON:
            content[media] = {"schema": _ref(operation.answer) if operation.answer else {"type": "object"}}
        elif media == BINARY:
            content[media] = {"schema": {"type": "string", "format": "binary"}}
        elif media == STREAM:
            content[media] = {
                "schema": {"description": "Events with chunks of the answer; `[DONE]` is the last one."}
            }
        else:
            content[media] = {"schema": {"type": "string"}}
    names = [*(_LIMIT_HEADERS if operation.statuses == ENGINE_STATUSES else ())]
    names += [HEADER_JSON_LENGTH] if BINARY in operation.media else []
    return {"description": "The answer.", "headers": _headers_of(operation.path, *names), "content": content}


def _error(operation: Operation, status: int) -> dict[str, Any]:
    name = "OipError" if speaks_oip(operation.path) else "Error"
    if status != 503 or not operation.failure:
        return {"$ref": f"#/components/responses/{name}{status}"}
    schema = _ref(operation.failure)
    if 401 in operation.statuses:  # the gateway itself may lack its configuration
        schema = {"anyOf": [schema, _ref(name)]}
    return {
        "description": "Not ready.",
        "headers": _headers_of(operation.path, "retry-after"),
        "content": {JSON: {"schema": schema}},
    }


def _error_responses() -> dict[str, Any]:
    """`Error404` and `OipError404`, and so on."""
    return {
        f"{name}{status}": {
            "description": _cause(status),
            "headers": _headers_of(path, *_LIMIT_HEADERS, *(["retry-after"] if status in (429, 503) else [])),
            "content": {JSON: {"schema": _ref(name)}},
        }
        for name, path in (("Error", "/v1"), ("OipError", "/v2"))
        for status in ENGINE_STATUSES
    }


def _cause(status: int) -> str:
    if status == 400:
        return "A mistake in the request; the message names the field."
    codes = sorted({kind.code or code for code, kind in ERRORS.items() if kind.status == status})
    return f"Codes: {', '.join(codes)}."


def _headers_of(path: str, *names: str) -> dict[str, Any]:
    if not path.startswith(("/v1", "/v2")):
        return {}
    every = ("x-request-id", "x-client-request-id", *names)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in every}


_LIMIT_HEADERS = [
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
]


def _headers() -> dict[str, Any]:
    count: Schema = {"type": "integer", "minimum": 0}
    described: Iterable[tuple[str, str, Schema]] = (
        ("x-request-id", "The gateway's own id of the request.", {"type": "string"}),
        ("x-client-request-id", "The `x-request-id` of the request, if it is harmless.", {"type": "string"}),
        ("retry-after", "Seconds.", {"type": "integer", "minimum": 1, "maximum": 120}),
        (HEADER_JSON_LENGTH, "Bytes of JSON before the binary tensors.", count),
        *(
            (name, "Where the tenant has this limit.", {"type": "string"} if "-reset-" in name else count)
            for name in _LIMIT_HEADERS
        ),
    )
    return {
        name: {"description": words, "schema": schema, "required": name == "x-request-id"}
        for name, words, schema in described
    }


def _path_parameter(name: str) -> dict[str, Any]:
    schema: Schema = {"type": "string", "minLength": 1}
    words = "`name`, or `namespace/name`: as it is, or with %2F."
    if name == "version":
        schema, words = {"const": oip_api.MODEL_VERSION}, "Each model has this one."
    return {"name": name, "in": "path", "required": True, "description": words, "schema": schema}


def _length_parameter() -> dict[str, Any]:
    return {
        "name": HEADER_JSON_LENGTH,
        "in": "header",
        "required": False,
        "description": "Bytes of JSON at the start of the body; only where binary tensors follow.",
        "schema": {"type": "integer", "minimum": 1},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
