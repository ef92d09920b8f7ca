"""Every method of every path of the gateway, in the order in which people read them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ENGINE_STATUSES = (400, 401, 404, 408, 413, 414, 415, 417, 429, 431, 500, 502, 503, 504)
"""What a request that goes to an engine may be answered with, beside 200."""
JSON = "application/json"
BINARY = "application/octet-stream"
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `answer`, `request` and `failure` (its 503, if no error object) name components."""

    path: str
    summary: str
    tag: str
    method: str = "get"
    request: str = ""
    example: Mapping[str, Any] = field(default_factory=dict)
    answer: str = ""
    media: tuple[str, ...] = (JSON,)
    """Of the answer."""
    statuses: tuple[int, ...] = ()
    """Beside 200. 401 among them means that a key is asked for."""
    failure: str = ""


def _operations() -> Iterator[Operation]:
    yield from _texts()
    yield from _numbers()
    yield Operation(
        path="/v1/models",
        summary="The models that the key's tenant sees",
        tag="Models",
        answer="Models",
        statuses=(401, 503),
    )
    yield Operation(
        path="/v1/models/{model}",
        summary="One model",
        tag="Models",
        answer="Model",
        statuses=(400, 401, 404, 503),
    )
    yield Operation(path="/v2", summary="What this server is", tag="Tensors", answer="Server")
    yield Operation(path="/v2/health/live", summary="The process answers", tag="Tensors", answer="Live")
    yield _readiness("/v2/health/ready", "Tensors")
    yield from _tensors("/v2/models/{model}")
    yield from _tensors("/v2/models/{model}/versions/{version}")
    yield Operation(path="/healthz", summary="The process answers", tag="Running it", answer="Health")
    yield _readiness("/readyz", "Running it")
    for path, summary, media in (
        ("/metrics", "Prometheus metrics", "text/plain"),
        ("/openapi.json", "This document", JSON),
        ("/docs", "This document as a page", "text/html"),
    ):
        yield Operation(path=path, summary=summary, tag="Running it", media=(media,))


def _texts() -> Iterator[Operation]:
    for path, name, summary, example in (
        ("/v1/chat/completions", "Chat", "Chat completion", {"messages": [{"role": "user", "content": "Hello"}]}),
        ("/v1/completions", "", "Text completion", {"prompt": "Once upon a time"}),
    ):
        yield Operation(
            path=path,
            summary=f"{summary} (tasks generate and echo)",
            tag="Text",
            method="post",
            request=f"{name or 'Completion'}Request",
            example={**example, "max_tokens": 16},
            answer=f"{name}Completion",
            media=(JSON, STREAM),
            statuses=ENGINE_STATUSES,
        )


def _numbers() -> Iterator[Operation]:
    question = "Where do my parcels go?"
    answers = ["The post office is open until six.", "Cats sleep a lot."]
    for path, name, summary, example in (
        ("/v1/embeddings", "Embeddings", "Embeddings of texts (task embed)", {"input": answers}),
        (
            "/v1/rerank",
            "Rerank",
            "Documents by relevance to a query (task rerank)",
            {"query": question, "documents": answers},
        ),
        ("/v1/score", "Score", "Scores of pairs of texts (task rerank)", {"text_1": question, "text_2": answers}),
        ("/v1/classify", "Classify", "Classes of texts (task classify)", {"input": answers}),
    ):
        yield Operation(
            path=path,
            summary=summary,
            tag="Numbers from texts",
            method="post",
            request=f"{name}Request",
            example=example,
            answer=name,
            statuses=ENGINE_STATUSES,
        )


def _tensors(model: str) -> Iterator[Operation]:
    yield Operation(
        path=model,
        summary="Its inputs and outputs (tasks embed and tensor); wakes it",
        tag="Tensors",
        answer="ModelMetadata",
        statuses=ENGINE_STATUSES,
    )
    yield Operation(
        path=f"{model}/ready",
        summary="Whether it answers, or would after a wake",
        tag="Tensors",
        answer="ModelReady",
        statuses=(400, 401, 404, 503),
        failure="ModelUnready",
    )
    yield Operation(
        path=f"{model}/infer",
        summary="Inference, in JSON or binary (tasks embed and tensor)",
        tag="Tensors",
        method="post",
        request="InferRequest",
        example={"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]}]},
        answer="InferAnswer",
        media=(JSON, BINARY),
        statuses=ENGINE_STATUSES,
    )


def _readiness(path: str, tag: str) -> Operation:
    return Operation(
        path=path,
        summary="The gateway should get traffic",
        tag=tag,
        answer="Readiness",
        statuses=(503,),
        failure="Readiness",
    )


OPERATIONS = tuple(_operations())
