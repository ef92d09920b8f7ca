"""What gateways serve, and what they and conductors tell each other.

`up`, a mounted Secret, the operator ──GatewayConfig──▶ gateway ──Demand──▶ conductor ──Table──▶ gateway
"""

import msgspec

from cotenant_serving.contract import Message, ModelState, Reason, Task


class ModelDemand(Message, frozen=True, kw_only=True):
    running: int = 0
    queued: int = 0


class Demand(Message, frozen=True, kw_only=True):
    """Requests in one gateway, now. Absent models have none."""

    gateway: str
    models: dict[str, ModelDemand] = msgspec.field(default_factory=dict)


class EngineRow(Message, frozen=True, kw_only=True):
    """An engine that may be sent requests."""

    instance: str
    model: str
    revision: str
    host: str
    port: int
    slots: int
    running: int = 0
    load_s: float = 0.0
    """Start of its process to ready; 0 when unknown."""


class ModelRow(Message, frozen=True, kw_only=True):
    model: str
    state: ModelState
    reason: Reason
    message: str = ""
    """For clients: no name of another model or tenant, no path, no device. Its owner reads `ModelStatus.message`."""
    eta_s: float | None = None
    """Seconds until an engine is expected to answer, from measured load times; None when unknown."""


class Table(Message, frozen=True, kw_only=True):
    """The routing table. `engines` are all that the conductor knows; `gone` are instances that left for good.

    A gateway drops a row only when its instance is in `gone`, or when the engine itself does not answer or
    answers 421: a conductor that just restarted must not empty a gateway's table.
    """

    epoch: str
    """Random per conductor process."""
    sequence: int
    engines: tuple[EngineRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    gone: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Those of `gone` whose heartbeats stopped without a word: they hang, perhaps for ever, or their node is lost.
    Nobody should wait for their answer. The others of `gone` finish what they have begun."""


class Limits(Message, frozen=True, kw_only=True):
    """A tenant's limits; None is unlimited. The capacity of each bucket is one minute's worth."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


class GatewayTenant(Message, frozen=True, kw_only=True):
    name: str
    key_sha256: tuple[str, ...] = ()
    """Hex SHA-256 of each key."""
    limits: Limits = Limits()
    models: tuple[str, ...] = ()
    """The models it sees, as `namespace/name`. A bare `name` works where it is unambiguous for the tenant."""
    claims: tuple[str, ...] = ()
    """Of `models` that share a bare name, those that it means: they were there first."""


class GatewayModel(Message, frozen=True, kw_only=True):
    name: str
    task: Task | None = None
    """None while nobody knows it: the files of the model are not read yet, or were refused. No engine runs then."""
    created: int = 0
    """Unix seconds, for `/v1/models`."""


class GatewayConfig(Message, frozen=True, kw_only=True):
    """What a gateway serves: a file (0600) written by `up` or mounted from a Secret, re-read when changed, and in a
    cluster also the operator's answer to `GET /v1/gateway-config?after=GENERATION&wait_s=30` (204: nothing newer)."""

    generation: int
    """Where file and operator differ, the higher one holds. Any change of content needs a higher one."""
    gateways: int = 1
    """How many gateways share each tenant's limits now; each of them lets a part of so many through."""
    conductors: tuple[str, ...] = ()
    """Base URLs."""
    pool_token_file: str = ""
    tenants: tuple[GatewayTenant, ...] = ()
    models: tuple[GatewayModel, ...] = ()
