"""The JSON of a torch.export program, checked before torch turns it into Python code. Pure.

torch's reader trusts that JSON: expressions of shapes go through `sympy.sympify` (an `eval`), operators are looked up
by attributes from `torch`, `math` and `operator`, names become variables of generated source, guards are source. So
every string in it must be of a kind that is known here and harmless, and what is not needed is dropped.
"""

import ast
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_DEPTH = 64
MAX_EXPRESSION_CHARS = 2000
MAX_TEXT_CHARS = 4096
MAX_INTEGER = 2**63
MAX_EXPONENT = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_DOTTED = re.compile(r"[A-Za-z0-9_]{1,255}(\.[A-Za-z0-9_]{1,255}){0,63}")
_SYMBOL = re.compile(r"[a-z]{1,4}[0-9]{1,9}")
_PAYLOAD = re.compile(r"(weight|tensor)_[0-9]{1,9}")
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
_FLOATS = frozenset({"Infinity", "-Infinity", "NaN"})
_DEVICES = frozenset({"cpu", "cuda"})
_MODES = frozenset({"", "ATEN", "TRAINING"})
OTHER_TARGETS = frozenset(
    [f"_operator.{name}" for name in _words("add sub mul floordiv truediv mod neg pos eq ne lt le gt ge and_ or_")]
    + [f"math.{name}" for name in _words("ceil floor trunc sqrt")]
    + [f"torch.sym_{name}" for name in _words("int float not max min ite sqrt")]
    + [f"torch.ops.higher_order.{name}" for name in _words("cond wrap_with_set_grad_enabled")]
)
"""What a program may call beside tensor operators: arithmetic of shapes, branches, no_grad()."""
REFUSED_ATEN = _words(
    "from_file _print set set_ set_data record_stream resize resize_ resize_as resize_as_ _resize_output "
    "_resize_output_ segment_reduce _segment_reduce_backward"
)
"""Operators of `aten` that reach beyond tensors (to files, to the terminal), change what memory a tensor is, or can
be told not to check their arguments."""
REFUSED_PARTS = ("sparse", "nested", "quantize", "storage", "cudnn", "mkldnn")
"""In names of operators: of other kinds of tensors, whose kernels trust their arguments more than dense ones do."""
_FUNCTIONS = _words(
    "Symbol Integer Float Rational Add Mul Pow PowByNatural Mod PythonMod FloorDiv CeilDiv CleanDiv ModularIndexing "
    "Max Min Where Equality Unequality GreaterThan LessThan StrictGreaterThan StrictLessThan And Or Not FloatTrueDiv "
    "IntTrueDiv ToFloat FloorToInt CeilToInt TruncToInt RoundToInt Identity IsNonOverlappingAndDenseIndicator"
)
_POWERS = frozenset({"Pow", "PowByNatural"})
_KEYWORDS = _words("positive nonnegative nonzero integer real precision")
_DROPPED: Mapping[str, Any] = {
    "metadata": {},
    "treespec_namedtuple_fields": {},
    "guards_code": [],
    "torch_version": "",
}
"""Fields that carry no part of the program, and what stands there instead."""
_NAMED = _words(
    "tensor_values sym_int_values sym_bool_values sym_float_values custom_obj_values as_string_to_argument"
)
"""Fields that hold an object with names as keys."""
_FREE = frozenset({"range_constraints", "opset_version"})
"""As above, with keys that torch only compares."""


class UnsafeProgramError(LoadError):
    def __init__(self, what: str) -> None:
        super().__init__(
            Reason.UNSAFE_FILES,
            f"the program has {what}, which could run code, or is not known to be harmless. Export the model again "
            "with plain tensors and operators of aten, from a source that you trust.",
        )


def safe_program(program: Any, fields: frozenset[str], is_operator: Callable[[str, str], bool]) -> dict[str, Any]:
    """A copy of `models/model.json` that torch may read.

    `fields` are those of torch's schema; `is_operator(name, overload)` says whether aten has it. Raises LoadError.
    """
    checker = _Checker(fields, is_operator)
    cleaned = checker.clean(program, "program", 0)
    if not isinstance(cleaned, dict) or not isinstance(cleaned.get("graph_module"), dict):
        raise UnsafeProgramError("no graph_module")
    return cleaned


def safe_payloads(config: Any, fields: frozenset[str]) -> Mapping[str, Mapping[str, Any]]:
    """`model_weights_config.json` or the constants' → by the tensor's name. Raises LoadError."""
    checker = _Checker(fields, lambda name, overload: False)
    payloads = config.get("config") if isinstance(config, dict) and len(config) == 1 else None
    if not isinstance(payloads, dict):
        raise UnsafeProgramError("a description of its weights that is none")
    for name, payload in payloads.items():
        if not _DOTTED.fullmatch(name) or not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            raise UnsafeProgramError(f"a tensor {name[:80]!r} that is stored as a pickle")
        _check(isinstance(payload.get("path_name"), str), "the part", payload.get("path_name"))
        checker.clean(payload, "payload", 0)
    return payloads


class _Checker:
    def __init__(self, fields: frozenset[str], is_operator: Callable[[str, str], bool]) -> None:
        self._fields = fields
        self._is_operator = is_operator

    def clean(self, value: Any, field: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise UnsafeProgramError("too many levels")
        if isinstance(value, dict):
            return self._object(value, field, depth)
        if isinstance(value, list):
            return [self.clean(item, field, depth + 1) for item in value]
        if isinstance(value, str):
            self._check_text(value, field)
        return value

    def _object(self, value: dict[str, Any], field: str, depth: int) -> dict[str, Any]:
        if field in ("as_device", "device"):
            return self._device(value)
        cleaned: dict[str, Any] = {}
        for name, inner in value.items():
            if field in _NAMED:
                _check(_is_name(name), "a name", name)
                cleaned[name] = self.clean(inner, "", depth + 1)
            elif field in _FREE:
                _check(len(name) <= MAX_EXPRESSION_CHARS, "a field", name)
                cleaned[name] = self.clean(inner, "", depth + 1)
            elif name in _DROPPED:
                cleaned[name] = _DROPPED[name]
            elif name != "module_call_graph":
                _check(name in self._fields, "the field", name)
                cleaned[name] = self.clean(inner, name, depth + 1)
        return cleaned

    def _device(self, value: dict[str, Any]) -> dict[str, Any]:
        """Everything is loaded on the CPU first; what runs on a GPU is moved there after."""
        _check(value.get("type") in _DEVICES and set(value) <= {"type", "index"}, "the device", value.get("type"))
        return {"type": "cpu", "index": None}

    def _check_text(self, text: str, field: str) -> None:
        if field in ("name", "as_name"):
            _check(text == "" or _is_name(text), "a name", text)
        elif field == "target":
            self._check_target(text)
        elif field == "expr_str":
            check_expression(text)
        elif field in ("as_string", "as_strings"):
            _check(len(text) <= MAX_TEXT_CHARS, "a text", text)
        elif field.endswith("_name"):
            known = _PAYLOAD if field == "path_name" else _DOTTED
            _check(known.fullmatch(text) is not None, "a name", text)
        elif field in ("as_float", "as_floats"):
            _check(text in _FLOATS, "a number", text)
        elif field == "verifiers":
            _check(text in _MODES, "the dialect", text)
        else:
            raise UnsafeProgramError(f"a text in {field} ({text[:80]!r})")

    def _check_target(self, target: str) -> None:
        found = _ATEN.fullmatch(target)
        if found is None:
            _check(target in OTHER_TARGETS, "the operator", target)
        else:
            special = found[1] in REFUSED_ATEN or any(part in found[1] for part in REFUSED_PARTS)
            _check(not special and self._is_operator(found[1], found[2]), "the operator", target)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and not keyword.iskeyword(text) and not text.startswith("__")


def _check(good: bool, what: str, value: object) -> None:
    if not good:
        raise UnsafeProgramError(f"{what} {str(value)[:80]!r}")


def check_expression(text: str) -> None:
    """A shape's expression as torch writes it: calls of sympy's functions on symbols and small integers."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= MAX_EXPRESSION_CHARS else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not _is_expression(tree.body, 0):
        raise UnsafeProgramError(f"the expression {text[:80]!r}")


def _is_expression(node: ast.expr, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool) or (type(node.value) is int and abs(node.value) < MAX_INTEGER)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
    if isinstance(node, ast.Name):
        return node.id in ("true", "false", "oo", "int_oo")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
        return False
    if not all(word.arg in _KEYWORDS and _is_plain(word.value) for word in node.keywords):
        return False
    if node.func.id in ("Symbol", "Float"):
        return len(node.args) == 1 and _is_leaf(node.func.id, node.args[0])
    if node.func.id in _POWERS and not (len(node.args) == 2 and _is_small(node.args[1]) and _no_power(node.args[0])):
        return False
    return all(_is_expression(argument, depth + 1) for argument in node.args)


def _no_power(node: ast.expr) -> bool:
    """Of bases: powers of powers are large exponents too."""
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return not names & _POWERS


def _is_small(node: ast.expr) -> bool:
    """Of exponents: a large one is all that it takes to use up time and memory."""
    if isinstance(node, ast.Call) and len(node.args) == 1:
        node = node.args[0]
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= MAX_EXPONENT


def _is_plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool | int) and abs(node.value) < 1000


def _is_leaf(kind: str, node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    pattern = _SYMBOL if kind == "Symbol" else re.compile(r"-?[0-9.]{1,40}(e[+-]?[0-9]{1,3})?")
    return pattern.fullmatch(node.value) is not None
