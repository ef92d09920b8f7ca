"""What a run and its worker processes tell each other: JSON lines on a worker's stdin and stdout; pure.

```
run    → worker   Orders, then Start, perhaps Stop; the end of stdin is a Stop
worker → run      Ready once it could send, a Tick each second from Start on, Done; or Failed instead
```
Keys travel here and nowhere else: no command line, no file, no environment.
"""

from typing import Literal

import msgspec

Ending = Literal["finished", "stopped", "bytes"]
"""All was sent and ended or given up; Stop came; the bound of bytes was reached."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. The worker sends its share of the plan to one endpoint."""

    process: int
    """Its number; stands in its records."""
    plan_file: str
    """This worker's share: a plan file. The turns of a conversation are in one share; ids are those of the plan."""
    records_file: str
    """Written by the worker: records_file.py."""
    url: str
    addresses: tuple[str, ...]
    """Of the url's host, the preferred one first; it is not looked up again. Empty: the name is unknown."""
    ca_file: str | None = None
    verify_tls: bool = True
    keys: dict[str, str] = {}
    """Tenant → API key; a tenant without one sends no `authorization`."""
    connections: int = 6_000
    """The most that are open at a time."""
    bytes: int = 20_000_000_000
    """Sent and received by this worker alone; what is in flight at that point ends as `unfinished`."""
    duration_s: float
    """Turns of conversations that would be due later are not sent and leave no record."""
    drain_s: float


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Second 0 of the plan."""

    start_ns: int
    """CLOCK_MONOTONIC, a little in the future, the same for all workers."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """What was not due yet is not sent and leaves no record; what is in flight gets this outcome."""

    outcome: Literal["interrupted", "unfinished"] = "interrupted"
    drain_s: float = 0.0
    """What is in flight may go on for so long before it gets it; 0: end at once."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    requests: int


class TenantTick(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start; samples of the last second."""

    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    in_flight: int = 0
    """Now: sent and not ended."""
    tokens: int = 0
    """Events with text, of answers under way too."""
    ttft_us: tuple[int, ...] = ()
    """Of the answers that began in the last second, each."""


class Tick(msgspec.Struct, frozen=True, tag="tick", kw_only=True):
    at_s: float
    """Seconds since the start."""
    tenants: dict[str, TenantTick]
    """Those that have been due so far."""
    errors: dict[str, int] = {}
    """Outcome → failed requests, since the start."""
    waiting: int = 0
    """Requests that are due and have no connection yet."""
    lateness_us: tuple[int, ...] = ()
    """Of the requests sent in the last second, each; of evenly spread ones when they are many thousands."""
    cpu_s: float
    """User and system time of the worker since its `Start`."""
    rss_bytes: int
    bytes_in: int
    bytes_out: int


class Done(msgspec.Struct, frozen=True, tag="done", kw_only=True):
    """The last line; every record is in the file by now."""

    ended: Ending
    at_s: float
    records: int
    cpu_s: float
    max_rss_bytes: int
    bytes_in: int
    bytes_out: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It cannot begin. A sentence: what, why, what to do."""

    problem: str


ToWorker = Start | Stop
FromWorker = Ready | Tick | Done | Failed

_ORDERS = msgspec.json.Decoder(Orders)
_TO_WORKER: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_FROM_WORKER: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_ENCODER = msgspec.json.Encoder()


def encode_line(message: Orders | ToWorker | FromWorker) -> bytes:
    return _ENCODER.encode(message) + b"\n"


def decode_orders(line: bytes) -> Orders:
    return _ORDERS.decode(line)


def decode_to_worker(line: bytes) -> ToWorker:
    return _TO_WORKER.decode(line)


def decode_from_worker(line: bytes) -> FromWorker:
    return _FROM_WORKER.decode(line)
