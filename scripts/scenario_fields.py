"""What a scenario of a load test may say, read off cotenant_loadtests itself."""

import inspect
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cotenant_loadtests import spec_values


def arrivals() -> list[tuple[str, ...]]:
    return list(_variants(spec_values.Arrivals, "process"))


def amounts() -> list[tuple[str, ...]]:
    return list(_variants(spec_values.Amount, "distribution"))


def _variants(union: Any, discriminator: str) -> Iterator[tuple[str, ...]]:
    """A row for each model of a discriminated union: its name, its fields, what it says of itself."""
    for model in typing.get_args(typing.get_args(union)[0]):
        (name,) = typing.get_args(model.model_fields[discriminator].annotation)
        fields = [_field(model, field) for field in model.model_fields if field != discriminator]
        yield f"`{name}`", ", ".join(fields), " ".join(inspect.getdoc(model).split())


def _field(model: type[BaseModel], name: str) -> str:
    info = model.model_fields[name]
    if info.is_required():
        return f"`{name}`"
    return f"`{name}` (optional)" if info.default is None else f"`{name}` ({info.default:.7g})"
