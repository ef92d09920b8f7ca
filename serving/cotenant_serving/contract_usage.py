"""Usage on its way from gateways: what sums need of its lines, and the messages that bring it to one place.

`POST /v1/usage` of the operator, pool token:

    gateway ──UsageBatch──▶ operator ──▶ ConfigMaps cotenant-usage-DAY      (`cotenant_operator.usage_ledger`)
            ◀─UsageReceipt─

A gateway sends a batch again, unchanged, until a receipt for it has come, and the next one only then. So an operator
that has added a batch already (by gateway, boot and sequence) adds nothing and answers as if it had.
"""

import msgspec

from cotenant_serving.contract import Message

_YEAR_10000_S = 253_402_300_800.0


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a sum needs of one line of `usage.jsonl`; the gateway's `UsageRecord` has more."""

    time: float
    tenant: str
    model: str
    request_id: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    outcome: str
    duration_s: float

    @property
    def has_day(self) -> bool:
        """A line whose time is no moment of the calendar is damaged."""
        return 0 <= self.time < _YEAR_10000_S


class UsageTotal(Message, frozen=True, kw_only=True):
    """The sum of requests that agree in the first four fields. No request id, no key, no prompt."""

    day: str
    """Of their ends, in UTC: `2026-11-26`."""
    tenant: str
    model: str
    outcome: str
    requests: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Requests among them whose tokens are estimated."""
    duration_s: float = 0.0
    """Of all together."""
    first: float
    """End of the first one, Unix seconds."""
    last: float


class UsageBatch(Message, frozen=True, kw_only=True):
    gateway: str
    """Name of the gateway: of its pod, in a cluster."""
    boot: str
    """Random per state directory: a restarted container goes on with it, a new pod has another."""
    sequence: int
    """1 for the first batch of a boot; each one is 1 more than the one before."""
    totals: tuple[UsageTotal, ...]


class UsageReceipt(Message, frozen=True, kw_only=True):
    """The batch of this number, and all before, are kept safely."""

    gateway: str
    boot: str
    sequence: int
