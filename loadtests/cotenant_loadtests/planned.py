"""One request of a plan: who sends what, when. A plan file is a header line and such lines, as JSON.

Equal plans send equal bytes. Bounds of single values stand here, what must hold between them in plan_rules.py.
"""

from typing import Annotated, Any

import msgspec

from cotenant_loadtests.spec import Api, Check, Datatype
from cotenant_loadtests.spec_values import MOST

PLAN_SCHEMA = "cotenant.dev/loadtest-plan/v1"
MOST_TOKENS = 10_000_000
"""Of one text."""

Place = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
SomeSeconds = Annotated[float, msgspec.Meta(gt=0, le=MOST)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Segment(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`tokens` words drawn from `seed` (words.py); equal segments are equal text."""

    seed: Seed
    tokens: Tokens


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`text`, or the words of the segments one after the other."""

    role: str
    segments: tuple[Segment, ...] = ()
    text: str | None = None


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Values are drawn from `seed`."""

    name: str
    datatype: Datatype
    shape: tuple[AtLeastOne, ...]
    seed: Seed


class Planned(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of `at_s` (seconds from the start) and `after` (the id of the conversation's turn before)."""

    id: Place
    """Its place in the plan, from 0."""
    at_s: Seconds | None = None
    after: Place | None = None
    think_s: Seconds = 0.0
    """Pause between the end of `after` and this request."""
    stream: str
    tenant: str
    model: str
    api: Api
    messages: tuple[Message, ...] = ()
    """chat: the messages. completions: one. embeddings: one for each input."""
    tensors: tuple[Tensor, ...] = ()
    max_tokens: AtLeastOne | None = None
    streamed: bool = False
    include_usage: bool = False
    cancel_after_tokens: AtLeastOne | None = None
    deadline_s: SomeSeconds = 60.0
    check: Check = "shape"
    body: dict[str, Any] = {}
    """Further fields of the body."""


class PlanHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: str = PLAN_SCHEMA
    scenario: str
    seed: Seed
    requests: Place
    duration_s: SomeSeconds
