"""The messages that bring the usage of all gateways to one place: `POST /v1/usage` of the operator, pool token.

    gateway ──UsageBatch──▶ operator ──▶ ConfigMaps cotenant-usage-DAY      (`cotenant_operator.usage_ledger`)
            ◀─UsageReceipt─

A gateway sends a batch again, unchanged, until a receipt for it has come, and the next one only then. So an operator
that has added a batch already (by gateway, boot and sequence) adds nothing and answers as if it had.
"""

from cotenant_serving.contract import Message


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
