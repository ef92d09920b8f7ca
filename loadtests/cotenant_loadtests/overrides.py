"""`streams.0.arrivals.rate_per_s=2`: a field of a scenario, set on the command line. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cotenant_loadtests.problems import refused
from cotenant_loadtests.yaml_values import Place, YamlError, load, value_at

_PART = re.compile(r"""(?:(?P<mark>["'])(?P<quoted>.+?)(?P=mark)|(?P<plain>[^.=]+))[.=]""")


@dataclass(frozen=True, slots=True)
class Override:
    place: Place
    value: Any
    said: str
    """As it was typed, without the value, which may be a secret: `--set seed`, `--seed`."""


def parse_override(scenario: Any, text: str) -> Override:
    """`field=value`, the value as YAML; streams go by position or by name. Raises ScenarioError.

    A name that has a dot stands in quotes: `slo.ttft_p99_ms."search/llama-3.1"=500`.
    """
    parts, yaml_text = _field_and_value(text)
    if text.startswith("="):
        raise refused("--set", 0, "names no field before '='; say FIELD=VALUE, such as duration_s=10")
    if yaml_text is None:
        raise refused("--set", 0, f"{text.partition('=')[0]!r} is no field=value, such as duration_s=10")
    said = f"--set {'.'.join(parts)}"
    try:
        value, _ = load(yaml_text)
    except YamlError as error:
        raise refused(said, 0, f"the value {error.message}") from None
    return Override(_place(scenario, parts), value, said)


def place_in(value: Any, field: str) -> Place:
    """The place of a dotted field; items of a list go by their position, or by the name that they have."""
    return _place(value, field.split("."))


def _field_and_value(text: str) -> tuple[list[str], str | None]:
    """The field's parts and what stands after `=`; None where there is none."""
    parts, at = list[str](), 0
    while (found := _PART.match(text, at)) is not None:
        parts.append(found["quoted"] or found["plain"])
        at = found.end()
        if text[at - 1] == "=":
            return parts, text[at:]
    return parts, None


def _place(value: Any, parts: Iterable[str]) -> Place:
    place: list[str | int] = []
    for part in parts:
        found: str | int = part
        if isinstance(value, list):
            found = _position(value, part)
        place.append(found)
        value = value_at(value, (found,))
    return tuple(place)


def with_override(value: Any, override: Override) -> Any:
    """A copy of the value with the field set; mappings on the way that are absent are made."""
    return _set(value, override.place, override)


def _set(value: Any, rest: Place, override: Override) -> Any:
    if not rest:
        return override.value
    part = rest[0]
    field = ".".join(map(str, override.place[: len(override.place) - len(rest)]))
    if isinstance(value, list):
        if not isinstance(part, int) or part >= len(value):
            raise refused(override.said, 0, f"has no item {part!r}; it has {len(value)}, counted from 0", field)
        return [_set(item, rest[1:], override) if index == part else item for index, item in enumerate(value)]
    if value is not None and not isinstance(value, dict):
        raise refused(override.said, 0, "is a single value here and has no fields; set it as a whole", field)
    return {**(value or {}), part: _set((value or {}).get(part), rest[1:], override)}


def _position(items: list[Any], part: str) -> str | int:
    if part.isdecimal():
        return int(part)
    named = (index for index, item in enumerate(items) if isinstance(item, dict) and item.get("name") == part)
    return next(named, part)
