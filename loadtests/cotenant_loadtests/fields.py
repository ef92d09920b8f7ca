"""What pydantic found wrong → the place in the YAML and a sentence. Pure."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cotenant_loadtests.problems import one_of
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.yaml_values import Place, value_at

_SHOWN = 60
_NOT_SHOWN = ("tenants", "target", "observe")
"""A key or a password may stand there."""
_SENTENCES = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "mapping_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "string_pattern_mismatch": "must be 1 to 63 lower-case letters, digits and '-', without '-' at its ends",
}


def place_of(value: Any, loc: tuple[str | int, ...], kind: str) -> Place:
    """pydantic's `loc` without the kinds of values and the long forms of shorthands that it also names."""
    place: list[str | int] = []
    for index, part in enumerate(loc):
        if kind in ("missing", "extra_forbidden") and index == len(loc) - 1:
            return (*place, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        place.append(part)
    return tuple(place)


def message_of(value: Any, place: Place, item: Any) -> str:
    """A sentence about one of pydantic's errors, with the value unless a key may stand there."""
    kind, context, found = item["type"], item.get("ctx") or {}, value_at(value, place)
    if kind == "extra_forbidden":
        return f"is no field of a scenario here; {one_of(str(place[-1]), allowed_fields(value, place[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return f"must be a mapping with {context['discriminator']}"
    if kind == "union_tag_invalid":
        return _not_one_of(str(context["tag"]), str(context["expected_tags"]))
    if kind == "literal_error":
        return _not_one_of(str(found), str(context["expected"]))
    sentence = _of_shorthand(kind, place) or _SENTENCES.get(kind) or _plain(str(context.get("error") or item["msg"]))
    if (place and place[0] in _NOT_SHOWN) or isinstance(found, Mapping | list):
        return sentence
    return f"{_shown(found)} {sentence}"


def _of_shorthand(kind: str, place: Place) -> str | None:
    """Where a name or a number may stand in place of a mapping; None elsewhere."""
    field = place[-1] if place else ""
    if kind == "model_type" and field in ("tenant", "model"):
        return "must be a name, a list of names, or a mapping with names"
    if kind == "model_attributes_type" and field != "arrivals":
        return "must be a number, or a mapping with distribution"
    return None


def allowed_fields(value: Any, place: Place) -> list[str]:
    """The fields that may stand in the mapping at `place`, from the schema."""
    schema: Any = _schema()
    definitions = schema["$defs"]
    for part in (*place, None):
        schema = _resolved(schema, definitions, value)
        if part is None:
            break
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}
        value = value_at(value, (part,))
    return list(schema.get("properties", {}))


@cache
def _schema() -> dict[str, Any]:
    return Scenario.model_json_schema()


def _resolved(schema: Any, definitions: Any, value: Any) -> Any:
    """Follows references, and of several kinds takes the one that the value says it is."""
    while True:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        elif "discriminator" in schema:
            tags = schema["discriminator"]
            schema = {"$ref": tags["mapping"].get(value_at(value, (tags["propertyName"],)))}
            if schema["$ref"] is None:
                return {}
        elif "anyOf" in schema:
            kinds = [kind for kind in schema["anyOf"] if "$ref" in kind or "discriminator" in kind]
            if not kinds:
                return schema
            schema = kinds[0]
        else:
            return schema


def _not_one_of(found: str, expected: str) -> str:
    allowed = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
    return f"{_shown(found)} is not allowed; {one_of(found, allowed)}"


def _plain(message: str) -> str:
    for start in ("Input", "String", "Tuple", "Value"):
        message = message.removeprefix(f"{start} should").strip()
    return message if message.startswith("must") else f"must {message}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
