"""Every message between the programs: desired state, heartbeats, status; table, demand, gateway configuration.

    up / operator ──Desired──▶ conductor ──EngineArgs──▶ engine ──Heartbeat──▶ conductor ──Table──▶ gateway
          └────────────────────GatewayConfig (a file)─────────────────────────────────────────────▶ gateway
                                                         conductor ◀──Demand── gateway ──HTTP──▶ engine

All are msgspec structs: frozen, JSON on the wire, unknown fields ignored so that versions may differ by one. Those
from and to gateways are in `contract_gateway`; those of usage, gateway ──▶ operator, in `contract_usage`.
A model is named `namespace/name` in every message. No message carries a secret: tokens travel as file paths.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from cotenant_serving.amounts import about, of_bytes

DeviceKind = Literal["cpu", "cuda"]
Task = Literal["generate", "embed", "rerank", "classify", "tensor", "echo"]
Sharing = Literal["timeSlice", "mig"]

ENGINE_PORTS = range(8800, 8900)

REQUEST_TIMEOUT_S = 600.0
"""The longest that one request may take, from its admission at a gateway to its last byte, seconds, where nobody says
otherwise. An engine that is replaced lets its requests run for as long, so that no rollout cuts one off."""


def share_resource(group: str) -> str:
    """Ray's custom resource for the devices of a worker group: `share_<group>`, 1 for each device of a node.

    KubeRay takes any resource whose name ends with `gpu` for the number of GPUs, so such a group's ends with `_`.
    """
    name = f"share_{group}"
    return f"{name}_" if name.endswith("gpu") else name


HEADER_INSTANCE = "x-cotenant-instance"
"""gateway → engine: the engine instance that is meant; another one answers 421 before any work."""
HEADER_MODEL = "x-cotenant-model"
"""gateway → engine: `namespace/name` of the model that is meant; an engine of another one answers 421."""
HEADER_REQUEST_ID = "x-request-id"
"""gateway → engine: the gateway's own id of the request (never the client's); also the key for cancel."""
HEADER_JSON_LENGTH = "inference-header-content-length"
"""Both ways, Open Inference Protocol only: bytes of JSON at the start of a body whose tensors follow in binary."""
HEADER_TRACE = "traceparent"
"""client → gateway → engine: W3C trace context. Read and sent on only where tracing is on; see `tracing`."""
HEADER_TRACE_STATE = "tracestate"
HEADER_USAGE = "x-cotenant-usage"
"""engine → gateway, not streamed answers: a `Usage` as compact JSON. The gateway strips it."""
HEADER_REFUSED = "x-cotenant-refused"
"""engine → gateway on 503 and 421: why no work was done, one of `busy`, `draining`, `loading`, `misdirected`."""
USAGE_COMMENT = b": cotenant-usage "
"""engine → gateway: starts the comment line that ends every stream, just before `data: [DONE]`:
`: cotenant-usage {"prompt_tokens":1,"completion_tokens":2}\\n\\n`. The gateway strips it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every message."""


class Reason(StrEnum):
    """Why a model is in its state: the closed list that stands in status, errors, table and docs."""

    READY = "Ready"
    IDLE = "Idle"
    WAKING = "Waking"
    LOADING = "Loading"
    NO_ROOM = "NoRoom"
    POD_PENDING = "PodPending"
    NO_NODE = "NoNode"
    DOES_NOT_FIT = "DoesNotFit"
    POOL_NOT_FOUND = "PoolNotFound"
    NOT_ALLOWED = "NotAllowed"
    NO_CUDA_DEVICE = "NoCudaDevice"
    NO_DEVICE = "NoDevice"
    MODEL_NOT_FOUND = "ModelNotFound"
    FILE_MISSING = "FileMissing"
    UNSAFE_FILES = "UnsafeFiles"
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    CORRUPT_WEIGHTS = "CorruptWeights"
    HUB_UNREACHABLE = "HubUnreachable"
    NOT_SUPPORTED = "NotSupported"
    CACHE_FULL = "CacheFull"
    DISK_FULL = "DiskFull"
    VOLUME_UNUSABLE = "VolumeUnusable"
    NEWER_FORMAT = "NewerFormat"
    STOPPED = "Stopped"
    FACTS_PENDING = "FactsPending"
    LOAD_FAILED = "LoadFailed"
    ENGINE_DIED = "EngineDied"
    MEMORY_EXCEEDED = "MemoryExceeded"
    CONDUCTOR_UNREACHABLE = "ConductorUnreachable"


class Candidate(Message, frozen=True, kw_only=True):
    """One worker group in which an engine may run, and what it gets there."""

    group: str
    share_bytes: int
    """Device memory that the engine may use, all in: weights, KV cache, runtime."""
    kv_cache_bytes: int = 0
    """The part of the share that the KV cache is made from; 0 for tasks without one."""


class EchoOptions(Message, frozen=True, kw_only=True):
    """Knobs of the `echo` engine: a deterministic stand-in for load and fault tests."""

    tokens_per_second: float = 0.0
    """Pace of one stream; 0 means as fast as it can."""
    load_s: float = 0.0
    """How long loading takes, seconds."""
    allocate_bytes: int = 0
    """Memory that it allocates and touches when it loads."""


class EngineSpec(Message, frozen=True, kw_only=True):
    """What an engine serves. Two engines of the same `revision` are interchangeable."""

    model: str
    revision: str
    """8 hex digits over everything that needs a new engine when it changes."""
    task: Task
    source: str = ""
    """`file:///dir` or `hf://repo@commit`; empty for `echo`."""
    candidates: tuple[Candidate, ...]
    """In order of preference, all of one device kind."""
    device: DeviceKind
    context_tokens: int = 2048
    """Prompt plus completion of one request, at most."""
    concurrency: int = 8
    """Requests that one engine serves at a time (its slots)."""
    max_batch: int = 32
    """Not for `generate` and `echo`: items (texts, pairs, rows) that are computed in one forward pass, at most."""
    batch_wait_s: float = 0.005
    """Not for `generate` and `echo`: how long the first item of a batch waits for company, at most."""
    echo: EchoOptions | None = None
    weights_bytes: int = 0
    """Of its weights files, for times that loads will take; 0 when nobody knows. No part of the revision."""


class DesiredModel(Message, frozen=True, kw_only=True):
    """One model that should be servable, or the reason why it cannot be."""

    name: str
    engine: EngineSpec | None = None
    refused: Reason | None = None
    """Set exactly when `engine` is None."""
    message: str = ""
    min_engines: int = 0
    max_engines: int = 1
    idle_after_s: float = 600.0


class WorkerGroup(Message, frozen=True, kw_only=True):
    """One kind of share of the pool. Ray nodes carry its devices as the custom resource `share_resource(name)`."""

    name: str
    device: DeviceKind
    memory_bytes: int
    """What one device of this group may use."""
    sharing: Sharing = "timeSlice"
    min_devices: int = 0
    """Devices that are kept whatever the demand; Ray's autoscaler brings them by itself."""
    max_devices: int = 0
    """Devices that the group may have: with fewer, the conductor asks Ray's autoscaler for a pod, one device each.
    0: no more than exist; nothing brings any."""


class Desired(Message, frozen=True, kw_only=True):
    """The whole desired state of one pool. A lower generation never replaces a higher one."""

    generation: int
    pool: str
    groups: tuple[WorkerGroup, ...] = ()
    models: tuple[DesiredModel, ...] = ()
    warm: dict[str, int] = {}
    """model → engines to load although nobody asks yet, as `min_engines` while it stands here, at most `max_engines`:
    what is warm in the Ray cluster that this one replaces."""
    draining: bool = False
    """Another Ray cluster takes over: no new engine starts here, those that are idle for a few seconds go, the others
    serve on. Without models everything goes, after its last request."""
    keep_devices: dict[str, int] = {}
    """While draining: group → devices that may still hold engines. Engines of those beyond go after their last
    request, those with the fewest requests first; `{}` limits nothing. An absolute number, so that a device that has
    left is never given up twice."""
    caches_per_pod: bool = False
    """Each worker pod keeps a weight cache of its own: one that has just come has no model."""


class EngineArgs(Message, frozen=True, kw_only=True):
    """What the conductor hands to a new engine. It stands in Serve's state, so it holds no secret."""

    app: str
    """`MODEL-REVISION-SLOT`: the name of the Serve app, one replica each."""
    spec: EngineSpec
    device_id: str
    """`<node ip>/<group>/<index>`: the key of the start lease."""
    device_index: int
    """Index among the devices of this kind on the node (for cuda: into CUDA_VISIBLE_DEVICES or NVML order)."""
    share_bytes: int
    kv_cache_bytes: int = 0
    device_bytes: int
    """Memory of the whole device, for the per-process memory fraction."""
    conductor_url: str
    pool_token_file: str
    cache_dir: str = ""
    cache_socket: str = ""
    """Unix socket of the node's weight cache, which fetches what is not in `cache_dir`; empty: the engine does. When
    it is empty here, an engine's process takes it from `COTENANT_CACHE_SOCKET` of its environment."""
    log_dir: str = ""
    log_to_container: bool = False
    """Whether its log also goes to the container's output, line by line as `[app] line`; needs `log_dir`."""
    host: str = ""
    """Address to listen on; empty is the node's own."""
    request_timeout_s: float = REQUEST_TIMEOUT_S
    """The longest request: those that run when it ends get so long to finish."""


EngineState = Literal["starting", "waiting", "loading", "ready", "draining", "failed"]
"""`starting`: finds out what it needs. `waiting`: has its model's files, waits for the start lease of its device.
`loading`: without the lease (`holds_lease`) its files still come to its node; with it they go into the device."""

Rung = Literal["download", "disk", "memory"]
"""Where weights come from, slowest first: a hub or another node, the node's disk, its page cache."""


class Fetch(Message, frozen=True, kw_only=True):
    """Files of a model that are on their way to an engine's node."""

    done_bytes: int
    total_bytes: int
    bytes_per_s: float = 0.0
    """Over the last seconds; 0 while nothing comes."""

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last byte; None when nobody knows."""
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s if self.bytes_per_s > 0 else None

    @property
    def words(self) -> str:
        """For people: `3.1 of 8.0 GB, about 40 s`."""
        so_far = of_bytes(self.done_bytes, self.total_bytes)
        return so_far if self.eta_s is None else f"{so_far}, {about(self.eta_s)}"


class WeightsLoad(Message, frozen=True, kw_only=True):
    """What an engine's weights cost it, as far as it has got."""

    fetched_bytes: int = 0
    fetched_s: float = 0.0
    read_bytes: int = 0
    """Of weights files, into the device's memory; 0 until it is done."""
    read_s: float = 0.0
    read_from: Literal["disk", "memory"] = "disk"

    @property
    def rung(self) -> Rung:
        return "download" if self.fetched_bytes else self.read_from


class Heartbeat(Message, frozen=True, kw_only=True):
    """What an engine says about itself, every `heartbeat_s`, from a thread of its own."""

    app: str
    model: str
    revision: str
    instance: str
    """Random per process start: a restarted engine is another instance."""
    host: str
    port: int
    pid: int
    device_id: str
    state: EngineState
    stage: str = ""
    """What it is doing while not ready, for people: `importing torch`, `reading weights`."""
    progress: float = 0.0
    """0 to 1 while loading."""
    fetch: Fetch | None = None
    """While files of the model come."""
    load: WeightsLoad | None = None
    """Once something was fetched or read; None for engines without weights."""
    reason: Reason | None = None
    """Set when `failed`."""
    message: str = ""
    slots: int = 0
    running: int = 0
    share_bytes: int = 0
    used_bytes: int = 0
    """Device memory in use by this engine now (cpu: RSS)."""
    load_s: float = 0.0
    """Measured, process start to ready; 0 until then."""
    requests_total: int = 0
    holds_lease: bool = False
    node: str = ""
    """Kubernetes node, from `NODE_NAME` of its environment; empty outside Kubernetes."""
    pod: str = ""
    """Pod, from `POD_NAME`."""


class HeartbeatReply(Message, frozen=True, kw_only=True):
    lease: bool = False
    """The engine may load now (it holds the start lease of its device)."""


class Usage(Message, frozen=True, kw_only=True):
    """Tokens of one request: the header and comment named above, and the answer to a cancel."""

    prompt_tokens: int
    completion_tokens: int


ModelState = Literal["cold", "waking", "ready", "waiting", "failed"]
"""`waking`: an engine is on its way. `waiting`: there is no room now. `failed`: see reason; retried by itself."""


class EngineStatus(Message, frozen=True, kw_only=True):
    """One engine, as shown by `cotenant get models`, `explain` and the demo's table."""

    app: str
    model: str
    revision: str
    instance: str = ""
    state: str
    stage: str = ""
    progress: float = 0.0
    fetch: Fetch | None = None
    """While files of the model come to its node."""
    load: WeightsLoad | None = None
    """What its weights cost, once they were fetched or read."""
    device_id: str = ""
    share_bytes: int = 0
    used_bytes: int = 0
    slots: int = 0
    running: int = 0
    pid: int = 0
    load_s: float = 0.0
    age_s: float = 0.0
    """Since it was created, or since its conductor began."""
    node: str = ""
    pod: str = ""


class ModelStatus(Message, frozen=True, kw_only=True):
    model: str
    state: ModelState
    reason: Reason
    message: str = ""
    revision: str = ""
    """The revision that serves now; empty when none does."""
    target_revision: str = ""
    running: int = 0
    queued: int = 0
    ready_engines: int = 0
    engines: tuple[EngineStatus, ...] = ()
    explanation: tuple[str, ...] = ()
    """Why it is where it is: lines of the last decision."""
    retry_in_s: float | None = None
    load_s: float | None = None
    """Measured when it was last loaded, start of the process to ready; None when never."""
    eta_s: float | None = None
    """While it is cold, waking or waiting: seconds from the start of an engine, or from now when one is on its way,
    until it answers, by what loads have taken. None when nobody knows."""
    must_fetch: bool = False
    """Its weights must come to a node before it answers, as far as anybody knows."""


class DeviceStatus(Message, frozen=True, kw_only=True):
    device_id: str
    group: str
    device: DeviceKind
    memory_bytes: int
    reserved_bytes: int
    """Sum of the shares placed on it."""
    used_bytes: int
    lease: str = ""
    """The app that holds the start lease; empty when free."""
    engines: int = 0
    """Engines on it, ending ones too: 0 is an empty device, which Ray's autoscaler may take away."""
    running: int = 0
    """Requests that its engines serve now."""
    node: str = ""
    """Kubernetes node, once an engine has told it."""
    pod: str = ""
    """Host name of the Ray node, which is the pod's name."""


class GroupStatus(Message, frozen=True, kw_only=True):
    """One worker group: the devices it has, and those that are to come."""

    group: str
    devices: int = 0
    empty: int = 0
    """Of `devices`: those without an engine."""
    max_devices: int = 0
    pending: int = 0
    """Devices asked for that are not there yet."""
    pending_s: float = 0.0
    """How long the group has been asked for one without getting any; 0 when nothing is pending."""
    reason: Reason | None = None
    """`PodPending`: on its way. `NoNode`: pending for too long; the group counts as unavailable for a while, in which
    other groups are tried. None: nothing is pending."""
    message: str = ""
    unavailable_s: float = 0.0
    """How much longer it counts as unavailable."""


class NodeWeights(Message, frozen=True, kw_only=True):
    """What the weight cache of one node has of the models that are desired here."""

    node: str
    here: dict[str, int] = {}
    """Source → bytes, of those that are whole and verified."""
    fetching: dict[str, int] = {}
    """Source → percent."""
    failed: dict[str, tuple[str, str]] = {}
    """Source → reason and message of what could not be had; it is tried again."""
    problem: tuple[str, str] | None = None
    """Reason and message, where it cannot use its volume."""


class PoolStatus(Message, frozen=True, kw_only=True):
    """The conductor's whole view: its answer to `GET /v1/status`."""

    pool: str
    epoch: str
    generation: int
    models: tuple[ModelStatus, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    draining: bool = False
    engines: int = 0
    """All of them, also those that end and those of models that are not desired any more: 0 is a drained cluster."""
    busy_engines: int = 0
    """Of `engines`: those that serve a request now."""
    in_flight: int = 0
    """Requests in all engines now."""
    rates: dict[Rung, float] = {}
    """Bytes/s at which weights were fetched and read lately."""
    weights: tuple[NodeWeights, ...] = ()
    """By node, as far as their weight caches have told."""
    reconciled: bool = False
    """Whether the conductor has compared its state with Serve's since it started: before, engines may lack."""
    pods_with_engines: tuple[str, ...] | None = None
    """Pods from which an engine, whichever, has spoken within the last minute; None: it has not listened so long."""
