"""What of a conductor's words may stand in an object's status. Pure.

A conductor explains itself with names of models and engines of every namespace; the status of a ModelDeployment is
read by whoever may read its namespace.
"""

import re
from collections.abc import Container

_ENGINE = re.compile(r"\b(?P<namespace>[a-z0-9][-a-z0-9]*)\.[a-z0-9][-a-z0-9]*-[0-9a-f]{8}-[0-9]+\b")
_MODEL = re.compile(r"(?<![\w./-])(?P<namespace>[a-z0-9][-a-z0-9]*)/[a-z0-9][-a-z0-9]*(?![\w/-]|\.[\w/])")
_TIME = re.compile(r"\b(?P<about>about )?(?P<count>\d+) (?P<unit>s|min)\b")
_STEPS_S = (0, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ABOUT_S = (1, 2, 5, 10, 20, 30, *(60 * minutes for minutes in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)))
_BYTES = re.compile(r"\b(?P<done>\d+(?:\.\d+)?) of (?P<total>\d+(?:\.\d+)?) (?P<unit>GB|MB|bytes)\b")
_RATE = re.compile(r" at [\d.]+ GB/s")
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
    """`43 %` → `40 %`, `47 s` → `over 30 s`, `about 35 s` → `about 1 min`, `3.1 of 8.0 GB` → `2.4 of 8.0 GB`.

    A status must not be written for every percent, second and megabyte.
    """
    text = _PERCENT.sub(lambda match: f"{int(match[1] or 0) * 10} %", text)
    text = _BYTES.sub(_in_tenths, _RATE.sub("", text))
    return _TIME.sub(_in_steps, text)


def _in_steps(match: re.Match[str]) -> str:
    """What has passed goes down to its step, what is to come up."""
    count = int(match["count"])
    if match["about"]:
        seconds = count * (60 if match["unit"] == "min" else 1)
        if seconds > _ABOUT_S[-1]:
            return f"more than {_ABOUT_S[-1] // 60} min"
        step_s = min(step for step in _ABOUT_S if step >= seconds)
        return f"about {step_s} s" if step_s < 60 else f"about {step_s // 60} min"
    if match["unit"] == "min":
        return match[0]
    return f"over {max(step for step in _STEPS_S if step <= count)} s"


def _in_tenths(match: re.Match[str]) -> str:
    done, total = float(match["done"]), float(match["total"])
    tenths = int(10 * done / total) if total else 0
    digits = 1 if "." in match["total"] else 0
    return f"{total * tenths / 10:.{digits}f} of {match['total']} {match['unit']}"
