"""Names of the steps at which modules that write can be cut off, as they stand in the source."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def steps_in(*modules: ModuleType) -> set[str]:
    """Of each `_step("link.make")`, `_step(name)` and `_step(f"{name}.make")`. A `name` is the last argument of a
    method, and stands for all that the module gives as that."""
    return {step for module in modules for step in _steps(ast.parse(Path(str(module.__file__)).read_text()))}


def _steps(tree: ast.Module) -> Iterator[str]:
    for method in ast.walk(tree):
        if isinstance(method, ast.FunctionDef):
            for call in _calls(method, "_step"):
                [what] = call.args
                if isinstance(what, ast.Constant):
                    yield what.value
                else:
                    for caller in _calls(tree, method.name):
                        yield eval(ast.unparse(what), {method.args.args[-1].arg: ast.literal_eval(caller.args[-1])})


def _calls(tree: ast.AST, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node
