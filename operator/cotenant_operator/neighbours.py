"""What of a conductor's words may stand in an object's status. Pure.

A conductor explains itself with names of models and engines of every namespace; the status of a ModelDeployment is
read by whoever may read its namespace.
"""

import re
from collections.abc import Container

_ENGINE = re.compile(r"\b(?P<namespace>[a-z0-9][-a-z0-9]*)\.[a-z0-9][-a-z0-9]*-[0-9a-f]{8}-[0-9]+\b")
_MODEL = re.compile(r"(?<![\w./-])(?P<namespace>[a-z0-9][-a-z0-9]*)/[a-z0-9][-a-z0-9]*(?![\w/-]|\.[\w/])")
_SECONDS = re.compile(r"\b(\d+) s\b")
_STEPS_S = (0, 10, 30, 60, 120, 300, 600, 1800, 3600)
_PERCENT = re.compile(r"\b(\d*)\d ?%")


def without_neighbours(text: str, namespace: str, models: Container[str]) -> str:
    """Engines and models (`models` are all, as `namespace/name`) of other namespaces lose their names."""

    def engine(match: re.Match[str]) -> str:
        return match[0] if match["namespace"] == namespace else "an engine of another namespace"

    def model(match: re.Match[str]) -> str:
        foreign = match["namespace"] != namespace and match[0] in models
        return "a model of another namespace" if foreign else match[0]

    if "-" in text and "." in text:
        text = _ENGINE.sub(engine, text)
    return _MODEL.sub(model, text) if "/" in text else text


def steady(text: str) -> str:
    """`43 %` → `40 %`, `47 s` → `over 30 s`: a status must not be written for every percent and second."""
    text = _PERCENT.sub(lambda match: f"{int(match[1] or 0) * 10} %", text)
    return _SECONDS.sub(lambda match: f"over {max(step for step in _STEPS_S if step <= int(match[1]))} s", text)
