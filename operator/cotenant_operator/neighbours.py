"""What an owner may read of a decision that names the models of others. Pure.

A conductor explains itself with names of models and engines of every namespace; the status of a ModelDeployment is
read by whoever may read its namespace.
"""

import re
from collections.abc import Container

_ENGINE = re.compile(r"\b(?P<namespace>[a-z0-9][-a-z0-9]*)\.[a-z0-9][-a-z0-9]*-[0-9a-f]{8}-[0-9]+\b")
_MODEL = re.compile(r"(?<![\w./-])(?P<namespace>[a-z0-9][-a-z0-9]*)/[a-z0-9][-a-z0-9]*(?![\w/-]|\.[\w/])")
_PERCENT = re.compile(r"\b(\d*)\d ?%")


def without_neighbours(text: str, namespace: str, models: Container[str]) -> str:
    """Engines and models (`models` are all, as `namespace/name`) of other namespaces lose their names."""

    def engine(match: re.Match[str]) -> str:
        return match[0] if match["namespace"] == namespace else "an engine of another namespace"

    def model(match: re.Match[str]) -> str:
        foreign = match["namespace"] != namespace and match[0] in models
        return "a model of another namespace" if foreign else match[0]

    return _MODEL.sub(model, _ENGINE.sub(engine, text))


def in_tens(text: str) -> str:
    """`43 %` → `40 %`: a status must not be written for every percent."""
    return _PERCENT.sub(lambda match: f"{int(match[1] or 0) * 10} %", text)
