"""One request of a plan: who sends what, when. A plan file is a header line and such lines, as JSON.

Equal plans send equal bytes.
"""

from typing import Any

import msgspec

from cotenant_loadtests.spec import Api, Check

PLAN_SCHEMA = "cotenant.dev/loadtest-plan/v1"


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """`tokens` words drawn from `seed` (words.py); equal segments are equal text."""

    seed: int
    tokens: int


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """`text`, or the words of the segments one after the other."""

    role: str
    segments: tuple[Segment, ...] = ()
    text: str | None = None


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Values are drawn from `seed`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    seed: int


class Planned(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Exactly one of `at_s` (seconds from the start) and `after` (the id of the conversation's turn before)."""

    id: int
    """Its place in the plan, from 0."""
    at_s: float | None = None
    after: int | None = None
    think_s: float = 0.0
    """Pause between the end of `after` and this request."""
    stream: str
    tenant: str
    model: str
    api: Api
    messages: tuple[Message, ...] = ()
    """chat: the messages. completions: one. embeddings: one for each input."""
    tensors: tuple[Tensor, ...] = ()
    max_tokens: int | None = None
    streamed: bool = False
    include_usage: bool = False
    cancel_after_tokens: int | None = None
    deadline_s: float = 60.0
    check: Check = "shape"
    body: dict[str, Any] = {}
    """Further fields of the body."""


class PlanHeader(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = PLAN_SCHEMA
    scenario: str
    seed: int
    requests: int
    duration_s: float
