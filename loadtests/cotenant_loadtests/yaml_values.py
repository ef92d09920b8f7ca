"""YAML text → plain values, and the line of each. Safe tags only, one document, bounded in size; pure."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

MAX_BYTES = 2**20
MAX_VALUES = 50_000
MAX_BITS = 64
_TOO_LONG = f"is a whole number of more than {MAX_BITS} bits; quote text"
_PREFIX = "tag:yaml.org,2002:"

Place = tuple[str | int, ...]
"""Keys and positions on the way to a value: `("streams", 0, "name")`."""


class YamlError(Exception):
    """Text that is not the YAML we read; its message quotes nothing of the text, which may be a key."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def load(text: str) -> tuple[Any, dict[Place, int]]:
    """The value and the lines, from 1, where keys or items stand. Raises YamlError."""
    if len(text.encode()) > MAX_BYTES:
        raise YamlError(1, f"the file has more than {MAX_BYTES} bytes")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Place, int] = {}
        return (_Values(lines).of(node, ()) if node else None), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 1, _reason(error)) from None
    except yaml.YAMLError:
        raise YamlError(1, "has characters that YAML does not allow") from None
    except RecursionError:
        raise YamlError(1, "is nested too deep, or an alias stands within what it names") from None


def value_at(value: Any, place: Place) -> Any:
    """What stands at the place; None where nothing does."""
    with suppress(KeyError, IndexError, TypeError):
        for part in place:
            value = value[part]
        return value
    return None


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = error.problem or error.context or "cannot be read"
    if "'\\t'" in reason:
        return "a tab stands where YAML allows only spaces"
    if "another document" in reason:
        return "a second document begins; a scenario is one"
    return "is not YAML: " + reason.replace("':'", "a colon").partition("'")[0].partition('"')[
        0
    ].strip().removesuffix(", but found")


class _Values:
    """Reads one tree of nodes, and counts, because an alias can repeat a whole tree."""

    def __init__(self, lines: dict[Place, int]) -> None:
        self._lines = lines
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def of(self, node: yaml.Node, place: Place) -> Any:
        self._counted(node)
        self._lines.setdefault(place, _line(node))
        kind = node.tag.removeprefix(_PREFIX)
        if kind == "map" and isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if kind == "seq" and isinstance(node, yaml.SequenceNode):
            return [self.of(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, kind)

    def _counted(self, node: yaml.Node) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlError(_line(node), f"has more than {MAX_VALUES} values; aliases count each time")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                continue
            key = key_node.value
            if key_node.tag != _PREFIX + "str":
                raise YamlError(_line(key_node), "a key is not text; quote it")
            if key in values:
                raise YamlError(_line(key_node), f"{key!r} stands here again, after line {self._lines[*place, key]}")
            self._lines[*place, key] = _line(key_node)
            values[key] = self.of(value_node, (*place, key))
        for merged in _merged(node):
            self._counted(merged)
            for key, value in self._mapping(merged, (*place, "<<")).items():
                values.setdefault(key, value)
        return values

    def _scalar(self, node: yaml.Node, kind: str) -> Any:
        if kind == "timestamp":
            return node.value
        if kind not in ("str", "int", "float", "bool", "null") or not isinstance(node, yaml.ScalarNode):
            raise YamlError(_line(node), "a tag is not allowed; quote a value that begins with '!'")
        try:
            value = self._scalars.construct_object(node)
        except (ValueError, LookupError, yaml.YAMLError):  # LookupError: `!!bool maybe`, `!!int ''`
            if kind == "int" and len(node.value) > MAX_BITS:  # Python reads only so many digits
                raise YamlError(_line(node), _TOO_LONG) from None
            raise YamlError(_line(node), "is no value of its type; quote text") from None
        if isinstance(value, int) and value.bit_length() > MAX_BITS:  # thousands of digits cannot even be shown
            raise YamlError(_line(node), _TOO_LONG)
        return value


def _merged(node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
    """The mappings of `<<: *other`; what stands in the node itself wins."""
    for key_node, value_node in node.value:
        if key_node.tag != _PREFIX + "merge":
            continue
        for other in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
            if not isinstance(other, yaml.MappingNode):
                raise YamlError(_line(key_node), "'<<' takes mappings only")
            yield other


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
