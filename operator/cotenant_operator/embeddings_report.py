"""`cotenant embed`: vectors for people and for programs. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from cotenant_operator.gateway_client import GatewayError

PATH = "/v1/embeddings"
_SHOWN = 4
_TEXT = 48


def vectors_of(answer: dict[str, Any], texts: Sequence[str]) -> list[list[float]]:
    """One vector for each text, in their order. Raises GatewayError when the answer is no such thing."""
    try:
        data = sorted(answer["data"], key=lambda item: item["index"])
        vectors = [[float(value) for value in item["embedding"]] for item in data]
    except (KeyError, TypeError, ValueError):
        vectors = []
    if len(vectors) != len(texts):
        raise GatewayError(f"the answer holds {len(vectors)} vectors for {len(texts)} texts; is it an embed model?")
    return vectors


def vector_rows(
    texts: Sequence[str], vectors: Sequence[Sequence[float]], *, wide: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """`wide` adds length and the cosine to the first text."""
    columns = ("TEXT", "DIMENSIONS", *(("NORM", "COSINE TO FIRST") if wide else ()), "VECTOR")
    return columns, [
        (
            _short(text),
            str(len(vector)),
            *((f"{_norm(vector):.4f}", f"{cosine(vectors[0], vector):.4f}") if wide else ()),
            ", ".join(f"{value:+.4f}" for value in vector[:_SHOWN]) + (", …" if len(vector) > _SHOWN else ""),
        )
        for text, vector in zip(texts, vectors, strict=True)
    ]


def vector_document(
    answer: dict[str, Any], texts: Sequence[str], vectors: Sequence[Sequence[float]]
) -> dict[str, Any]:
    return {
        "model": answer.get("model"),
        "data": [{"text": text, "embedding": list(vector)} for text, vector in zip(texts, vectors, strict=True)],
        "usage": answer.get("usage"),
    }


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = _norm(one) * _norm(other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def _norm(vector: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in vector))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else line[: _TEXT - 1] + "…"
