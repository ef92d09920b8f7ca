"""Prometheus' text exposition format, version 0.0.4, as values. Pure, and strict: a page is read whole or refused.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_LINE_LENGTH = 65_536
# Repetitions are possessive (`*+`, `++`): they give back nothing of what they took, so no line takes long to refuse.
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*+[ \t]*+=[ \t]*+"(?:[^"\\]|\\.)*+"'
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]*+"
    rf"(?:\{{[ \t]*+(?P<labels>{_LABEL}(?:[ \t]*+,[ \t]*+{_LABEL})*+)?[ \t]*+,?+[ \t]*+\}})?[ \t]*+"
    r"(?P<value>[^ \t{}#]++)(?:[ \t]++-?\d++)?+[ \t]*+"
)
_ONE_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"')
_TYPE = re.compile(r"#[ \t]+TYPE[ \t]+(?P<name>\S+)[ \t]+(?P<type>counter|gauge|histogram|summary|untyped)[ \t]*")
_ESCAPED = re.compile(r"\\(.)")


class PrometheusTextError(ValueError):
    """The message names the line, never what stands in it."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    @property
    def series(self) -> str:
        """`name{label="value"}`: what a series is called wherever it is shown."""
        shown = ",".join(f'{name}="{_escape(value)}"' for name, value in self.labels)
        return f"{self.name}{{{shown}}}" if shown else self.name

    def label(self, name: str) -> str | None:
        return next((value for known, value in self.labels if known == name), None)


@dataclass(frozen=True, slots=True)
class Page:
    types: dict[str, str] = field(default_factory=dict)
    """Family → counter, gauge, histogram, summary or untyped, where the page says so."""
    samples: tuple[MetricSample, ...] = ()

    def counts(self, name: str) -> bool:
        """Whether a series of this name only goes up: a counter, or the count, sum and buckets of a histogram."""
        if self.types.get(name) == "counter" or self.types.get(name.removesuffix("_total")) == "counter":
            return True
        family, _, ending = name.rpartition("_")
        return ending in ("count", "sum", "bucket") and self.types.get(family) in ("histogram", "summary")


def parse(text: str, wanted: Callable[[str], bool] = lambda name: True) -> Page:
    """All samples whose name is wanted; the others are checked and left. Raises PrometheusTextError."""
    types: dict[str, str] = {}
    samples: list[MetricSample] = []
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if len(line) > MOST_LINE_LENGTH:
            raise PrometheusTextError(f"line {number} is longer than {MOST_LINE_LENGTH} characters")
        if line.startswith("#"):
            if match := _TYPE.fullmatch(line):
                types[match["name"]] = match["type"]
        elif line:
            match = _SAMPLE.fullmatch(line)
            value = _number(match["value"]) if match else None
            if match is None or value is None:
                raise PrometheusTextError(f"line {number} is no sample of a metric")
            if wanted(match["name"]):
                samples.append(MetricSample(match["name"], _labels(match["labels"] or ""), value))
    return Page(types, tuple(samples))


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, _ESCAPED.sub(_unescaped, value)) for name, value in _ONE_LABEL.findall(text))


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(text: str) -> float | None:
    """As Go's ParseFloat takes it, without underscores, which only Python knows in text."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
