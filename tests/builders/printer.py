"""What `kubectl get` shows of an object, from the columns of its CRD. The age is left out: it never stands still."""

import re
from collections.abc import Mapping
from typing import Any

from cotenant_operator.crd import Column, Crd

_STEP = re.compile(r"\.(?P<field>\w+)|\[\?\(@\.type==\"(?P<type>\w+)\"\)\]")


def printed(crd: Crd, item: Mapping[str, Any], *, wide: bool = False) -> str:
    """Header and one row, two lines."""
    columns = [column for column in crd.columns if column.type != "date" and (wide or not column.wide)]
    header = ["NAME", *(column.name.upper() for column in columns)]
    row = [item["metadata"]["name"], *(cell(column, item) for column in columns)]
    widths = [max(len(one), len(other)) + 3 for one, other in zip(header, row, strict=True)]
    lines = ("".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in (header, row))
    return "".join(f"{line.rstrip()}\n" for line in lines)


def cell(column: Column, item: Mapping[str, Any]) -> str:
    """Of a JSONPath of fields and conditions; empty for what is not there."""
    value: Any = item
    for step in _STEP.finditer(column.path):
        if step["field"]:
            value = value.get(step["field"]) if isinstance(value, Mapping) else None
        else:
            value = next((entry for entry in value or () if entry["type"] == step["type"]), None)
        if value is None:
            return ""
    return str(value)
