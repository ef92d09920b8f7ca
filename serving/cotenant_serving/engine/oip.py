"""What engines have in common that speak the Open Inference Protocol: routes, reading requests, answering."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cotenant_serving.contract import HEADER_JSON_LENGTH, Usage
from cotenant_serving.engine.base import UnaryAnswer, UnaryRequest
from cotenant_serving.oip_api import (
    MODEL_VERSION,
    InferRequest,
    OutputTensor,
    TensorFacts,
    infer_response,
    metadata,
    parse_infer,
    parse_json_length,
)

_MODEL = re.compile(rf"/v2/models/(?P<model>.+?)(?:/versions/{re.escape(MODEL_VERSION)})?(?P<infer>/infer)?")
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ModelPath:
    """`model` as the client named it."""

    model: str
    infer: bool


def model_path(method: str, path: str) -> ModelPath | None:
    """POST …/infer, or GET of the model's metadata; None for any other route."""
    found = _MODEL.fullmatch(path)
    if found is None or method != ("POST" if found["infer"] else "GET"):
        return None
    return ModelPath(found["model"], found["infer"] is not None)


def read_infer(request: UnaryRequest) -> InferRequest:
    """Raises RequestError (400)."""
    length = parse_json_length(request.headers.get(HEADER_JSON_LENGTH), len(request.body))
    return parse_infer(request.body, length)


def infer_answer(asked: InferRequest, model: str, outputs: Sequence[OutputTensor], usage: Usage) -> UnaryAnswer:
    """Raises RequestError (400) for an output that is not there, or that JSON cannot hold."""
    body, json_bytes = infer_response(asked, model, outputs)
    if json_bytes is None:
        return UnaryAnswer(body, usage)
    return UnaryAnswer(body, usage, BINARY, {HEADER_JSON_LENGTH: str(json_bytes)})


def metadata_answer(
    model: str, platform: str, inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts]
) -> UnaryAnswer:
    return UnaryAnswer(metadata(model, platform, inputs, outputs), Usage(prompt_tokens=0, completion_tokens=0))
