"""What every kind of `cotenant.dev/v1alpha1` is made of: the strict base class and the types of fields. Pure."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from cotenant_operator.quantity import parse_bytes, parse_seconds

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def wrong(field: str, message: str) -> PydanticCustomError:
    """An error of the field `field` (dotted, below the model that raises it)."""
    return PydanticCustomError("cotenant", "{message}", {"message": message, "field": field})


def _name(longest: int) -> Any:
    def check(value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                "must be lower-case letters, digits and '-', and begin and end with a letter or digit (RFC 1123)"
            )
        if len(value) > longest:
            raise ValueError(f"has {len(value)} characters; at most {longest} are allowed")
        return value

    return AfterValidator(check)


def _named_schema(longest: int, format_: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "maxLength": longest, "format": format_})


def _matching(pattern: str, allowed: str) -> Any:
    """`allowed`: the pattern in words."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {allowed}, as for Kubernetes")
        return value

    return AfterValidator(check)


def _secret_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 253, "pattern": f"^{pattern}$"})


NAME, QUANTITY, SIZE, DURATION = "cotenant-name", "cotenant-quantity", "cotenant-size", "cotenant-duration"
"""Formats of the JSON schema, for which the CRDs have rules."""
Name = Annotated[str, _name(40), _named_schema(40, NAME)]
Namespace = Annotated[str, _name(63), _named_schema(63, NAME)]
_SECRET_NAME, _SECRET_KEY = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "[-._A-Za-z0-9]+"
SecretName = Annotated[
    str,
    Field(max_length=253),
    _matching(_SECRET_NAME, "lower-case letters, digits, '-' and '.', with a letter or digit first and last"),
    _secret_schema(_SECRET_NAME),
]
"""No Secret has another name; and one with a slash in it would ask the API server for something else."""
SecretKey = Annotated[
    str,
    Field(max_length=253),
    _matching(_SECRET_KEY, "letters, digits, '-', '_' and '.'"),
    _secret_schema(_SECRET_KEY),
]
ByteCount = Annotated[int, BeforeValidator(parse_bytes), WithJsonSchema({"format": QUANTITY})]
Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0), WithJsonSchema({"format": SIZE})]
"""A `ByteCount` above 0."""
DurationS = Annotated[float, BeforeValidator(parse_seconds), WithJsonSchema({"format": DURATION})]
Count = Annotated[int, Strict(), Field(ge=0, le=1_000_000)]
Limit = Annotated[int, Strict(), Field(ge=1, le=10**12)]
Flag = Annotated[bool, Strict()]
Rate = Annotated[float, Strict(), Field(ge=0, le=1e9, allow_inf_nan=False)]


class Spec(BaseModel):
    """Base of everything that stands in YAML."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class ClusterMetadata(Spec):
    name: Name = Field(description="Name of the object, at most 40 characters.")
    labels: dict[str, str] = Field(default={}, description="Labels; kept, no effect here.")
    annotations: dict[str, str] = Field(default={}, description="Annotations; kept, no effect here.")


class Metadata(ClusterMetadata):
    namespace: Namespace = Field(default="default", description="Namespace of the object.")


class SecretRef(Spec):
    name: SecretName = Field(description="Name of the Secret.")
    key: SecretKey = Field(description="Key inside the Secret.")
