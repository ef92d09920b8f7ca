"""Tables of docs/load-testing-results.md: what a load test writes, read from the code that writes it."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cotenant_loadtests import exports, gate
from cotenant_loadtests.record import MEANINGS, SUCCESSES

LOADTESTS = Path(__file__).parents[1] / "loadtests" / "cotenant_loadtests"
FIELDS = ("Field", "Type", "What")
_WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "None": "null",
    "Any": "anything",
}


@dataclass(frozen=True, slots=True)
class Struct:
    """`fields`: (name, type in Python, words)."""

    name: str
    about: str
    fields: tuple[tuple[str, str, str], ...]


def structs(source: str) -> list[Struct]:
    """Classes of Python source with annotated fields, and the strings under them."""
    return [
        Struct(node.name, re.sub(r"\bNone\b", "null", ast.get_docstring(node) or ""), tuple(_fields(node.body)))
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    ]


def literals(source: str) -> dict[str, str]:
    """`Verdict = Literal["passed", …]` → its values, as a reader of the JSON sees them."""
    found = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Subscript(value=ast.Name(id="Literal"), slice=values)
            ):
                found[name] = " or ".join(f"`{value}`" for value in _values(values))
    return found


def results() -> list[Struct]:
    """Of results.json, the outermost first."""
    *parts, outermost = structs((LOADTESTS / "results.py").read_text())
    return [outermost, *parts]


def extras() -> list[Struct]:
    return structs((LOADTESTS / "extras.py").read_text())


def rows(struct: Struct, known: Sequence[Struct], words: dict[str, str]) -> list[tuple[str, ...]]:
    names = {one.name for one in known}
    return [(f"`{name}`", type_words(hint, names, words), about) for name, hint, about in struct.fields]


def type_words(hint: str, structs_known: set[str], words: dict[str, str]) -> str:
    """`tuple[Group, ...]` → `list of [Group](#group)`."""

    def say(node: ast.expr) -> str:
        match node:
            case ast.BinOp(left=left, right=right):
                return f"{say(left)} or {say(right)}"
            case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[one, ast.Constant()])):
                return f"list of {say(one)}"
            case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=several)):
                return f"[{', '.join(say(one) for one in several)}]"
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, value])):
                return "map" if say(value) == "anything" else f"map of {say(value)}"
            case ast.Subscript(value=ast.Name(id="Literal")):
                return " or ".join(f"`{value}`" for value in _values(node.slice))
            case _:
                return simple(ast.unparse(node))

    def simple(name: str) -> str:
        return f"[{name}](#{name.lower()})" if name in structs_known else (_WORDS | words)[name]

    return say(ast.parse(hint, mode="eval").body)


def tables(of: list[Struct], known: list[Struct]) -> Iterator[tuple[Struct, list[tuple[str, ...]]]]:
    words = literals((LOADTESTS / "results.py").read_text()) | literals((LOADTESTS / "extras.py").read_text())
    for struct in of:
        yield struct, rows(struct, known, words)


def outcomes() -> list[tuple[str, ...]]:
    return [(f"`{outcome}`", _kind(outcome), _sentence(about)) for outcome, about in MEANINGS.items()]


def columns() -> list[tuple[str, ...]]:
    return [(f"`{column.name}`", column.kind, column.about) for column in exports.COLUMNS]


def slo_table() -> str:
    """As the docstring of gate.py has it."""
    return "".join(f"{line}\n" for line in (gate.__doc__ or "").splitlines() if line.startswith("|"))


def _fields(body: list[ast.stmt]) -> Iterator[tuple[str, str, str]]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation), _string(following)


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return re.sub(r"\bNone\b", "null", " ".join(node.value.value.split()))
    return ""


def _values(node: ast.expr) -> list[str]:
    value = ast.literal_eval(node)
    return list(value) if isinstance(value, tuple) else [value]


def _kind(outcome: str) -> str:
    return "success" if outcome in SUCCESSES else "counts nowhere" if outcome == "interrupted" else "failure"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
