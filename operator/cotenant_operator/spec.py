"""ModelDeployment, Tenant and GPUPool (`cotenant.dev/v1alpha1`): the one source of the schema.

Strict: a field exists only when it works, and every other one is refused. In YAML names are camelCase; Python
code may use either. `Secret` is Kubernetes' own kind, read for the keys of tenants.
"""

import base64
import binascii
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from cotenant_operator.near import hint
from cotenant_operator.schema import (
    ByteCount,
    ClusterMetadata,
    Count,
    DurationS,
    Flag,
    Limit,
    Metadata,
    Name,
    Namespace,
    Rate,
    SecretRef,
    Size,
    Spec,
    wrong,
)
from cotenant_operator.spec_pool import GPUPool, GPUPoolSpec, Worker
from cotenant_operator.tasks import TASKS, misplaced
from cotenant_serving.contract import Task

__all__ = [
    "API_VERSION",
    "Acceptance",
    "GPUPool",
    "GPUPoolSpec",
    "GpuShare",
    "ModelDeployment",
    "ModelDeploymentSpec",
    "Secret",
    "SecretRef",
    "Tenant",
    "TenantKey",
    "TenantLimits",
    "TenantSpec",
    "Worker",
]

API_VERSION = "cotenant.dev/v1alpha1"
_SOURCE_HF = re.compile(r"hf://(?P<repo>[\w][\w.-]*(/[\w][\w.-]*)?)(@(?P<revision>[\w][\w./+-]*))?", re.ASCII)
_MIG_PROFILE = re.compile(r"[1-9]g\.[0-9]{1,3}gb(\.me)?")


def _task(value: Any) -> Any:
    if value not in TASKS:
        raise ValueError("is not a task; " + hint(str(value), TASKS))
    return value


def _source(value: str) -> str:
    if value.startswith("file://"):
        path = value.removeprefix("file://")
        if not path.startswith(("/", "./", "../")):
            raise ValueError("must be file:///absolute/folder or file://./folder-beside-this-file")
        if not value.isprintable() or (path.startswith("/") and ".." in path.split("/")):
            raise ValueError("must be the folder's own path, without '..' and control characters")
        return value
    if not _SOURCE_HF.fullmatch(value) or ".." in value:
        raise ValueError("must be hf://owner/name, hf://owner/name@revision, or file:///absolute/folder")
    return value


def _profile(value: str) -> str:
    if not _MIG_PROFILE.fullmatch(value):
        raise ValueError("must be a MIG profile such as 1g.10gb")
    return value


def _batch_wait(value: float) -> float:
    if value > 1:
        raise ValueError("must be at most 1s: every request of a model that is not busy waits for so long")
    return value


def _true(value: Any) -> Any:
    if value is not True:
        raise ValueError("must be true; leave it out otherwise")
    return value


class GpuShare(Spec):
    """How much of a device an engine gets: exactly one field."""

    memory: Size | None = Field(
        default=None, description="Device memory in all: weights, KV cache and runtime. A quantity, such as 12Gi."
    )
    fraction: Annotated[float, Strict(), Field(gt=0, le=1)] | None = Field(
        default=None, description="Part of one device's memory, above 0 and up to 1."
    )
    mig: Annotated[str, AfterValidator(_profile)] | None = Field(
        default=None, max_length=16, description="One whole MIG slice of this profile, such as 1g.10gb."
    )
    whole: Annotated[Literal[True], BeforeValidator(_true)] | None = Field(
        default=None, description="true: one whole device."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("memory", "fraction", "mig", "whole") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of memory, fraction, mig, whole is allowed; given: {', '.join(given) or 'none'}. "
                "Leave spec.gpu out to have the share sized by the estimate"
            )
        return self


class Replicas(Spec):
    min: Count = Field(default=0, description="Engines kept warm at all times. 0 lets the model go cold.")
    max: Annotated[int, Strict(), Field(ge=1, le=1000)] = Field(default=1, description="Engines at most.")
    idle_after: DurationS = Field(
        default=600.0, description="An engine without requests for this long may be stopped, down to min."
    )

    @model_validator(mode="after")
    def _min_up_to_max(self) -> Self:
        if self.min > self.max:
            raise wrong("min", f"is above max {self.max}; raise max or lower min")
        return self


class Engine(Spec):
    context_tokens: Annotated[int, Strict(), Field(ge=16, le=16_777_216)] | None = Field(
        default=None,
        description="Tokens of one text (generate: prompt plus completion), at most. Not for tensor. "
        "Default: 2048, or the model's limit if lower.",
    )
    concurrency: Annotated[int, Strict(), Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Requests that one engine serves at a time. Default: 8 for generate and echo, 64 for the others.",
    )
    max_batch: Annotated[int, Strict(), Field(ge=1, le=1024)] = Field(
        default=32,
        description="embed, rerank, classify, tensor: texts, pairs or rows of one forward pass, at most.",
    )
    batch_wait: Annotated[DurationS, AfterValidator(_batch_wait)] = Field(
        default=0.005,
        description="embed, rerank, classify, tensor: how long the first of a batch waits for others, at most 1s.",
    )
    tokens_per_second: Rate = Field(default=0.0, description="echo only: pace of one stream; 0 is unpaced.")
    load_seconds: Rate = Field(default=0.0, description="echo only: how long loading takes, seconds.")
    allocate: ByteCount = Field(default=0, description="echo only: memory it allocates and touches, a quantity.")


class ModelDeploymentSpec(Spec):
    model: Annotated[str, AfterValidator(_source)] | None = Field(
        default=None,
        max_length=4096,
        description="hf://owner/name[@branch, tag or commit], or file:///folder. Not for task echo.",
    )
    task: Annotated[Task, BeforeValidator(_task)] | None = Field(
        default=None, description="What it does; inferred from the model's files when absent."
    )
    gpu: GpuShare | None = Field(default=None, description="Share of a device; sized by the estimate when absent.")
    replicas: Replicas = Field(default=Replicas(), description="How many engines, and when they go.")
    tenants: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Tenants that see it. Default: those bound to its namespace; others only if they accept it.",
    )
    engine: Engine = Field(default=Engine(), description="Sizes of one engine.")
    pool: Name = Field(default="default", description="The GPUPool it runs in.")

    @model_validator(mode="after")
    def _fields_of_the_task(self) -> Self:
        if self.task != "echo":
            if self.model is None:
                raise wrong(
                    "model", "required field is missing; set hf://owner/name or file:///folder (or task: echo)"
                )
        elif self.model is not None:
            raise wrong("model", "is not for task echo, which loads nothing; remove it")
        possible = [self.task] if self.task else [task for task in TASKS if task != "echo"]
        for field, message in misplaced(sorted(self.engine.model_fields_set), possible):
            raise wrong(field, message)
        return self


class ModelDeployment(Spec):
    """A model to be served: the eight lines that an ML engineer writes."""

    api_version: Literal["cotenant.dev/v1alpha1"] = "cotenant.dev/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: Metadata
    spec: ModelDeploymentSpec

    @property
    def full_name(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"


class TenantKey(Spec):
    secret_ref: SecretRef = Field(description="Where the API key stands.")


class Acceptance(Spec):
    namespace: Namespace = Field(description="Namespace whose models may be shown to the tenant.")
    models: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(
        default=("*",), min_length=1, max_length=256, description="Names of models, or '*' for all."
    )

    def covers(self, namespace: str, model: str) -> bool:
        return self.namespace == namespace and ("*" in self.models or model in self.models)


class TenantLimits(Spec):
    """Absent limits are unlimited. The capacity of each bucket is one minute's worth."""

    requests_per_minute: Limit | None = Field(default=None, description="Requests per minute.")
    tokens_per_minute: Limit | None = Field(default=None, description="Prompt and completion tokens per minute.")
    concurrent_requests: Limit | None = Field(default=None, description="Requests at a time.")


class TenantSpec(Spec):
    namespaces: tuple[Namespace, ...] = Field(
        default=(), max_length=256, description="Namespaces whose models it sees."
    )
    accepts: tuple[Acceptance, ...] = Field(
        default=(), max_length=256, description="Models of other namespaces it may be shown."
    )
    keys: tuple[TenantKey, ...] = Field(
        default=(), max_length=64, description="API keys, each in a Secret of the operator's namespace."
    )
    limits: TenantLimits = Field(default=TenantLimits(), description="Answered with 429 when exceeded.")


class Tenant(Spec):
    """Who may call: keys, limits, and which models it sees."""

    api_version: Literal["cotenant.dev/v1alpha1"] = "cotenant.dev/v1alpha1"
    kind: Literal["Tenant"] = "Tenant"
    metadata: ClusterMetadata
    spec: TenantSpec


class Secret(Spec):
    """Kubernetes' Secret. Its values appear in no message and no repr."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    metadata: Metadata
    type: str = "Opaque"
    immutable: Flag = False
    string_data: dict[str, str] = Field(default={}, repr=False)
    data: dict[str, str] = Field(default={}, repr=False)

    @model_validator(mode="after")
    def _data_is_base64(self) -> Self:
        for key, value in self.data.items():
            try:
                base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                raise wrong(f"data.{key}", "is not base64 of UTF-8 text; use stringData for plain text") from None
        return self

    def value(self, key: str) -> str | None:
        """Plain text of one key (stringData wins over data, as in Kubernetes), or None."""
        if key in self.string_data:
            return self.string_data[key]
        return base64.b64decode(self.data[key]).decode() if key in self.data else None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.string_data, *self.data]))
