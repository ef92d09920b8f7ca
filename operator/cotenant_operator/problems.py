"""pydantic's errors → problems a user can act on: place, field, value, what is allowed. Pure."""

import json
import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from cotenant_operator.near import hint
from cotenant_operator.positions import Document, Path

_SHOWN = 60
_HIDDEN = ("stringData", "data", "keys", "secretRef")
_PLAIN: dict[str, str] = {
    "string_type": "must be text; quote it",
    "int_type": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "model_type": "must be a mapping of fields",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "mapping_type": "must be a mapping",
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a file. `line` counts from 1; 0 means the file as a whole."""

    file: str
    line: int
    field: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "") + (f":{self.column}" if self.column else "")
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


def problems_of(error: ValidationError, model: type[BaseModel], document: Document, file: str) -> list[Problem]:
    """Every error of one object, in the order of its lines."""
    errors = error.errors(include_url=False)
    inside = {item["loc"][:length] for item in errors for length in range(len(item["loc"]))}
    # pydantic also counts the items of a list that are wrong as missing; the items say it better
    kept = [item for item in errors if not (item["type"] == "too_short" and item["loc"] in inside)]
    return sorted({_problem(item, model, document, file) for item in kept})


def _problem(item: Any, model: type[BaseModel], document: Document, file: str) -> Problem:
    path: Path = tuple(item["loc"])
    context = item.get("ctx") or {}
    if item["type"] == "cotenant":
        path += tuple(int(part) if part.isdigit() else part for part in context["field"].split("."))
        value = _at(document.value, path)
    else:
        value = item["input"]
    return Problem(file, document.line_of(path), dotted(path), _message(item, context, model, path, value))


def _message(item: Any, context: Any, model: type[BaseModel], path: Path, value: Any) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return f"unknown field; {hint(str(path[-1]), fields_at(model, path[:-1]))}"
    if kind == "missing":
        return "required field is missing"
    message = str(context["message"]) if kind == "cotenant" else _sentence(item, context)
    secret = any(part in _HIDDEN for part in path)
    if secret or value is None or kind.endswith(("_too_short", "_too_long")) or isinstance(value, dict | list):
        return message
    return f"{_shown(value)} {message}"


def _sentence(item: Any, context: Any) -> str:
    kind = item["type"]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "literal_error":
        allowed = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return f"is not allowed; {hint(str(item['input']), allowed)}"
    if kind == "value_error":
        return str(context["error"])
    text = str(item["msg"])
    return text.replace("Input should", "must").replace("String should", "must").replace("Tuple should", "must")


def fields_at(model: type[BaseModel], path: Path) -> list[str]:
    """Names, as they stand in YAML, of the fields that may stand at `path`."""
    current: Any = model
    for part in path:
        current = _inner(current, part)
    return [field.alias or name for name, field in current.model_fields.items()] if _is_model(current) else []


def _inner(current: Any, part: str | int) -> Any:
    if not _is_model(current) or isinstance(part, int):
        return current
    for name, field in current.model_fields.items():
        if part in (field.alias, name):
            return _model_in(field.annotation)
    return None


def _model_in(annotation: Any) -> Any:
    """The model inside `X | None`, `tuple[X, ...]` or `Annotated[X, …]`."""
    if _is_model(annotation) or typing.get_origin(annotation) is None:
        return annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, tuple, list, typing.Annotated):
        return next((found for arg in typing.get_args(annotation) if _is_model(found := _model_in(arg))), None)
    return None


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def dotted(path: Path) -> str:
    """`spec.workers[0].name`"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _at(value: Any, path: Path) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
