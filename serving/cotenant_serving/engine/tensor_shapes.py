"""Sizes that depend on each other: expressions of symbols, their ranges, and what a program demands of them. Pure.

torch writes a dimension as `Symbol('s77', positive=True, integer=True)` or as an expression of such, a range for
each symbol, and further demands as guards: `(L['x'].size()[0] % 2) == 0`.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sizes = Mapping[str, int]
"""Of symbols."""


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension: `size` when it is fixed, else `tree`, an expression over `symbols`."""

    size: int | None
    symbols: frozenset[str] = frozenset()
    tree: Any = None

    @property
    def symbol(self) -> str | None:
        """Its name when it is nothing but a symbol."""
        return self.tree if isinstance(self.tree, str) else None

    def value(self, sizes: Sizes) -> int:
        """Raises KeyError for a symbol without a size."""
        return self.size if self.size is not None else _value(self.tree, sizes)

    def solve(self, value: int) -> tuple[str, int] | None:
        """(symbol, its size) when the expression is k times one symbol and `value` a multiple of k; else None."""
        if isinstance(self.tree, str):
            return self.tree, value
        function, arguments = self.tree
        factors = [one for one in arguments if isinstance(one, int)]
        names = [one for one in arguments if isinstance(one, str)]
        if function != "Mul" or len(factors) != 1 or len(names) != 1 or value % factors[0]:
            return None
        return names[0], value // factors[0]

    @property
    def solvable(self) -> bool:
        return self.size is not None or self.solve(0) is not None


def parse_dim(value: Mapping[str, Any]) -> Dim:
    """`{"as_int": 4}` or `{"as_expr": {"expr_str": …}}`. Raises ValueError for what is not known here."""
    if "as_int" in value:
        return Dim(int(value["as_int"]))
    tree = _tree(ast.parse(value["as_expr"]["expr_str"], mode="eval").body)
    return Dim(None, frozenset(_symbols(tree)), tree) if not isinstance(tree, int) else Dim(tree)


_FUNCTIONS: Mapping[str, Callable[..., int]] = {
    "Add": lambda *terms: sum(terms),
    "Mul": lambda *factors: _product(factors),
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "CeilDiv": lambda left, right: -(-left // right),
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Pow": operator.pow,
    "PowByNatural": operator.pow,
    "Max": max,
    "Min": min,
}


def _product(factors: Sequence[int]) -> int:
    product = 1
    for factor in factors:
        product *= factor
    return product


def _tree(node: ast.expr) -> Any:
    """int, name of a symbol, or (function, arguments)."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_tree(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name == "Symbol" and isinstance(node.args[0], ast.Constant):
            return str(node.args[0].value)
        if name == "Integer":
            return _tree(node.args[0])
        if name in _FUNCTIONS and not node.keywords:
            return name, tuple(_tree(argument) for argument in node.args)
    raise ValueError(f"the size {ast.unparse(node)}")


def _symbols(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    return [name for argument in tree[1] for name in _symbols(argument)] if isinstance(tree, tuple) else []


def _value(tree: Any, sizes: Sizes) -> int:
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return sizes[tree]
    return _FUNCTIONS[tree[0]](*(_value(argument, sizes) for argument in tree[1]))


Path = tuple[str | int, ...]
"""Where a tensor is among forward()'s arguments: `("d", "b", 0)` is `d["b"][0]`."""
ShapeOf = Callable[[Path], Sequence[int]]

_COMPARE: Mapping[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_BINARY: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True, slots=True)
class Guard:
    """What a program demands of shapes beyond their ranges. `sizes` are the (tensor, dimension) that it looks at."""

    text: str
    sizes: frozenset[tuple[Path, int]]
    tree: ast.expr

    @property
    def is_equality(self) -> bool:
        """Whether it says of two dimensions only that they are the same."""
        tree = self.tree
        plain = isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq)
        return plain and all(_size_of(side) is not None for side in (tree.left, *tree.comparators))  # type: ignore[attr-defined]

    def holds(self, shape_of: ShapeOf) -> bool:
        return bool(_evaluate(self.tree, shape_of))


def parse_guard(text: str) -> Guard:
    """Raises ValueError for a guard of another kind."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"the condition {text[:200]}") from None
    sizes: set[tuple[Path, int]] = set()
    if not _is_guard(tree, sizes, 0):
        raise ValueError(f"the condition {text[:200]}")
    return Guard(text, frozenset(sizes), tree)


def _is_guard(node: ast.expr, sizes: set[tuple[Path, int]], depth: int) -> bool:
    if depth > 32:
        return False
    if (size := _size_of(node)) is not None:
        sizes.add(size)
        return True
    inner: list[ast.expr]
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int)
    if isinstance(node, ast.Compare):
        if not all(type(op) in _COMPARE for op in node.ops):
            return False
        inner = [node.left, *node.comparators]
    elif isinstance(node, ast.BoolOp):
        inner = node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        inner = [node.operand]
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        inner = [node.left, node.right]
    else:
        return False
    return all(_is_guard(one, sizes, depth + 1) for one in inner)


def _size_of(node: ast.expr) -> tuple[Path, int] | None:
    """`L['d'][0].size()[1]` → (("d", 0), 1)."""
    if not (
        isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and type(node.slice.value) is int
    ):
        return None
    call = node.value
    if not (isinstance(call, ast.Call) and not call.args and not call.keywords):
        return None
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "size"):
        return None
    path = _path(call.func.value)
    return (path, node.slice.value) if path else None


def _path(node: ast.expr) -> Path:
    steps: list[str | int] = []
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        if not isinstance(node.slice.value, str | int):
            return ()
        steps.append(node.slice.value)
        node = node.value
    return tuple(reversed(steps)) if isinstance(node, ast.Name) and node.id == "L" else ()


def _evaluate(node: ast.expr, shape_of: ShapeOf) -> int:
    if (size := _size_of(node)) is not None:
        return shape_of(size[0])[size[1]]
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Compare):
        values = [_evaluate(one, shape_of) for one in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return all(_COMPARE[type(op)](left, right) for op, left, right in pairs)
    if isinstance(node, ast.BoolOp):
        every = all if isinstance(node.op, ast.And) else any
        return every(_evaluate(one, shape_of) for one in node.values)
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, shape_of)
        return not value if isinstance(node.op, ast.Not) else -value
    assert isinstance(node, ast.BinOp)
    return _BINARY[type(node.op)](_evaluate(node.left, shape_of), _evaluate(node.right, shape_of))
