"""Values of the chart: values.yaml with its comments → values.schema.json, and the table in docs/helm.md.

    python scripts/chart_values.py           write the schema
    python scripts/chart_values.py --check   exit with 1 when it differs, or when a value has no description

The comment right above a value is its description. Two kinds of lines in it say what the default does not:

    # @type NAME      one of scripts/chart_types.yaml
    # @schema {...}   JSON schema, beside the type that the default has
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from generated_files import ROOT, SourceError, bring_up_to_date

CHART = ROOT / "charts" / "cotenant"
VALUES, SCHEMA = CHART / "values.yaml", CHART / "values.schema.json"
TYPES = ROOT / "scripts" / "chart_types.yaml"
_WORDS = {"boolean": "boolean", "integer": "integer", "number": "number", "string": "string", "array": "list"}


class ValuesError(SourceError):
    """values.yaml cannot be read as described above; the message names the value and what to write."""


@dataclass(frozen=True, slots=True)
class Value:
    """One that users set; what stands around it are sections."""

    path: tuple[str, ...]
    default: Any
    description: str
    schema: dict[str, Any]
    type: str
    """In the words of the table."""

    @property
    def name(self) -> str:
        return ".".join(self.path)


def main(arguments: Sequence[str] | None = None) -> int:
    about = "Write charts/cotenant/values.schema.json."
    return bring_up_to_date(__file__, about, lambda: {SCHEMA: schema_text(values())}, arguments)


def values(text: str | None = None) -> list[Value]:
    """In the file's order. Raises ValuesError."""
    text = VALUES.read_text() if text is None else text
    types = yaml.safe_load(TYPES.read_text())
    return list(_values(yaml.compose(text), (), text.splitlines(), types))


def schema_text(found: Sequence[Value]) -> str:
    root = _section()
    root["properties"]["global"] = {"type": "object", "description": "Helm's; cotenant reads nothing of it."}
    for value in found:
        section = root
        for name in value.path[:-1]:
            section = section["properties"].setdefault(name, _section())
        section["properties"][value.path[-1]] = value.schema
    _name_known(root)
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart cotenant"}
    return json.dumps(head | root, indent=2) + "\n"


def rows(found: Sequence[Value]) -> list[tuple[str, ...]]:
    """Of the table in docs/helm.md: value, type, default, description."""
    return [(f"`{value.name}`", value.type, _shown(value.default), value.description) for value in found]


def _values(
    node: yaml.MappingNode, path: tuple[str, ...], lines: Sequence[str], types: dict[str, Any]
) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        about, extra = _comment(lines, key.start_mark.line, here, types)
        if isinstance(child, yaml.MappingNode) and child.value and not extra:
            yield from _values(child, here, lines, types)
        elif not about:
            raise ValuesError(f"{'.'.join(here)} has no description: write a comment above it in {VALUES.name}")
        else:
            yield _value(here, _plain(child), about, extra)


def _comment(
    lines: Sequence[str], line: int, path: tuple[str, ...], types: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """What stands above a key: its description, and what `@` lines say of its type."""
    words: list[str] = []
    extra: dict[str, Any] = {}
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    for text in (comment.strip().removeprefix("#").strip() for comment in lines[first:line]):
        kind, _, rest = text.partition(" ")
        if kind == "@schema":
            extra |= yaml.safe_load(rest)
        elif kind == "@type" and rest in types:
            extra |= {"words": types[rest]["words"], **types[rest]["schema"]}
        elif kind.startswith("@"):
            raise ValuesError(f"{'.'.join(path)}: there is no {text!r}; types: {', '.join(types)}")
        else:
            words.append(text)
    return " ".join(words), extra


def _value(path: tuple[str, ...], default: Any, about: str, extra: dict[str, Any]) -> Value:
    name = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}.get(type(default))
    words = extra.pop("words", None)
    if name is None and "type" not in extra:
        raise ValuesError(f"{'.'.join(path)} is {default!r}: say its type with a `# @type` line")
    schema = {"type": name, **extra} if "type" not in extra else dict(extra)
    if "enum" in schema:
        del schema["type"]
    return Value(path, default, about, {"description": about, **schema}, words or _words(schema))


def _words(schema: dict[str, Any]) -> str:
    """A schema in the words of the other tables in docs/."""
    if "enum" in schema:
        return " or ".join(f"`{item}`" for item in schema["enum"])
    words = [_WORDS[schema["type"]]]
    if schema["type"] == "array":
        words.append(f"of {_WORDS[schema['items']['type']]}s")
    words += [f"from {schema['minimum']}"] if schema.get("minimum") is not None else []
    words += [f"up to {schema['maximum']}"] if "maximum" in schema else []
    return " ".join(words)


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _name_known(section: dict[str, Any]) -> None:
    """Makes helm's refusal of an unknown value list the known ones."""
    if section.get("additionalProperties") is False:
        section["propertyNames"] = {"enum": sorted(section["properties"])}
    for inner in section.get("properties", {}).values():
        _name_known(inner)


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _shown(default: Any) -> str:
    if isinstance(default, dict | list):
        return f"`{yaml.safe_dump(default, default_flow_style=True, sort_keys=False, width=10_000).strip()}`"
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.exit(main())
