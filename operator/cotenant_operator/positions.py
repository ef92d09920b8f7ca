"""YAML text → plain values and the line of each of them. Pure, safe tags only, bounded in size and depth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MAX_BYTES = 2**20
MAX_DEPTH = 40
MAX_VALUES = 100_000
MAX_BITS = 64
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

Path = tuple[str | int, ...]


class YamlProblem(Exception):  # noqa: N818 - a finding in a file
    """What is wrong, at which line and column (from 1; column 0 is unknown). Holds no value of the file."""

    def __init__(self, message: str, line: int, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document. `lines[path]` is where a value begins, `key_lines[path]` where its key stands."""

    value: Any
    line: int
    lines: dict[Path, int]
    key_lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """Line of the key at `path`, else of the closest thing around it."""
        for length in range(len(path), 0, -1):
            found = self.key_lines.get(path[:length]) or self.lines.get(path[:length])
            if found:
                return found
        return self.line


def documents(text: str) -> Iterator[Document]:
    """The documents of one file, without empty ones. Raises YamlProblem at the first thing that is no YAML."""
    if len(text.encode()) > MAX_BYTES:
        raise YamlProblem(f"the file has more than {MAX_BYTES} bytes; split it", 1)
    try:
        _check_depth(text)
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                yield _Reader().document(node)
    except yaml.MarkedYAMLError as error:
        raise _problem(error) from None
    except yaml.YAMLError as error:
        raise YamlProblem(f"is not YAML: {str(error).splitlines()[0]}", 1) from None


def _check_depth(text: str) -> None:
    """Before the tree is built, because building it is recursive."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.events.MappingStartEvent | yaml.events.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.events.MappingEndEvent | yaml.events.SequenceEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise YamlProblem(f"is nested deeper than {MAX_DEPTH} levels", line)


def _problem(error: yaml.MarkedYAMLError) -> YamlProblem:
    mark = error.problem_mark or error.context_mark
    text = error.problem or error.context or "is not YAML"
    if "'\\t'" in text:
        text = "a tab stands where YAML allows only spaces; indent with spaces"
    # These quote what stands there, and that may be a key that nobody quoted.
    if "undefined alias" in text:
        text = "found undefined alias; quote a value that begins with '*'"
    if "tag handle" in text:
        text = "found undefined tag handle; quote a value that begins with '!'"
    return YamlProblem(f"is not YAML: {text}", mark.line + 1 if mark else 1, mark.column + 1 if mark else 0)


def _tag_problem(node: yaml.Node) -> YamlProblem:
    """Does not name the tag: an unquoted key that begins with '!' is one too."""
    message = "a tag is not allowed; remove it, or quote a value that begins with '!'"
    return YamlProblem(message, node.start_mark.line + 1)


class _Reader:
    """Turns one tree of nodes into values. Counts them, because an alias can repeat a whole tree."""

    def __init__(self) -> None:
        self._scalars = yaml.constructor.SafeConstructor()
        self._left = MAX_VALUES
        self._lines: dict[Path, int] = {}
        self._key_lines: dict[Path, int] = {}

    def document(self, node: yaml.Node) -> Document:
        value = self._value(node, ())
        return Document(value, node.start_mark.line + 1, self._lines, self._key_lines)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._counted(node)
        line = node.start_mark.line + 1
        if len(path) > MAX_DEPTH:
            raise YamlProblem(f"is nested deeper than {MAX_DEPTH} levels (an alias of itself?)", line)
        self._lines[path] = line
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            raise _tag_problem(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _counted(self, node: yaml.Node) -> None:
        self._left -= 1
        if self._left < 0:
            line = node.start_mark.line + 1
            raise YamlProblem(f"has more than {MAX_VALUES} values (aliases count each time)", line)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag == _TIMESTAMP:  # Kubernetes knows no dates: 2026-11-23 is text there
            return node.value
        try:
            value = self._scalars.construct_object(node)
        except yaml.constructor.ConstructorError:
            raise _tag_problem(node) from None
        except (ValueError, LookupError):  # LookupError: `!!bool maybe`, `!!int ''`
            raise YamlProblem("a number or value cannot be read; quote it", node.start_mark.line + 1) from None
        if isinstance(value, int) and value.bit_length() > MAX_BITS:  # thousands of digits cannot even be shown
            raise YamlProblem("a whole number is too large; quote it", node.start_mark.line + 1)
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = self._key(key_node)
            if key in result:
                before = self._key_lines[(*path, key)]
                raise YamlProblem(
                    f"key {key!r} stands twice, first on line {before}; keep one", key_node.start_mark.line + 1
                )
            self._key_lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self._value(value_node, (*path, key))
        for other in merged:
            self._merge(other, path, result)
        return result

    def _merge(self, node: yaml.Node, path: Path, result: dict[str, Any]) -> None:
        """`<<: *defaults`: keys that are set here win over merged ones."""
        if not isinstance(node, yaml.MappingNode):
            raise YamlProblem("'<<' merges only mappings", node.start_mark.line + 1)
        self._counted(node)
        key_lines, lines = self._key_lines, self._lines
        self._key_lines, self._lines = {}, {}
        merged = self._mapping(node, path)
        self._key_lines, self._lines = _added(key_lines, self._key_lines), _added(lines, self._lines)
        for key, value in merged.items():
            result.setdefault(key, value)

    def _key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and isinstance(key := self._scalar(node), str):
            return key
        raise YamlProblem("a key is not text; quote it", node.start_mark.line + 1)


def _added(before: dict[Path, int], found: dict[Path, int]) -> dict[Path, int]:
    """`before`, and what it did not have; takes time only for what was found."""
    for path, line in found.items():
        before.setdefault(path, line)
    return before
