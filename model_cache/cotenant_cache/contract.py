"""What cache instances, engines, conductor and operator say to each other, and the values of plans. No I/O.

Sizes are bytes, times are seconds; `…_at` is seconds since the epoch, shown to people and used for cost only:
nothing is ever let go because a clock says so.
"""

from typing import Literal

import msgspec

FORMAT = 1
"""Of the ledger on the volume. An instance that finds a higher one writes nothing."""
BLOCK_BYTES = 8 * 2**20
"""What is fetched between two looks at the budget, and the most that is fetched twice after a kill."""

Priority = Literal["pinned", "preload", "wanted"]
Phase = Literal["waiting", "resolving", "making room", "fetching", "verifying", "done", "failed"]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """JSON of the cache's HTTP API and of its files; unknown fields are ignored, so that versions can differ."""


class ModelFile(Message, frozen=True, kw_only=True):
    """A file of a model at one commit. `digest`: SHA-256 (64 hex digits), or git's SHA-1 of small files (40)."""

    name: str
    size_bytes: int
    digest: str


class Progress(Message, frozen=True, kw_only=True):
    """How far an `ensure` is. Streamed as JSON lines; the last one has phase `done` or `failed`."""

    source: str
    phase: Phase
    commit: str = ""
    folder: str = ""
    """With `done`: the snapshot's folder on the volume of the instance that answers."""
    done_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_s: float = 0.0
    eta_s: float | None = None
    files: tuple["FileProgress", ...] = ()
    reason: str = ""
    """With `failed`: a CacheError's reason."""
    message: str = ""
    retry_after_s: float | None = None
    """With `failed`: so long the hub asked to be left alone, then."""


class FileProgress(Message, frozen=True, kw_only=True):
    name: str
    done_bytes: int
    total_bytes: int


class CachedModel(Message, frozen=True, kw_only=True):
    """A model on a volume, as `ls` and /v1/models show it."""

    repo: str
    commit: str
    revisions: tuple[str, ...] = ()
    """Branches and tags that are recorded as this commit."""
    size_bytes: int
    present_bytes: int
    """Of these, on disk; less than size_bytes while it is fetched or when it was cut off."""
    files: int
    verified: bool
    """Whether every blob was checked against its digest since it was written or adopted."""
    verified_at: float = 0.0
    used_at: float = 0.0
    pinned: bool = False
    preload: bool = False
    leases: int = 0
    refetch_s: float = 0.0

    @property
    def source(self) -> str:
        return f"hf://{self.repo}@{self.commit}"

    @property
    def whole(self) -> bool:
        return self.present_bytes >= self.size_bytes


class Eviction(Message, frozen=True, kw_only=True):
    """A model that would go, and what that costs."""

    repo: str
    commit: str
    frees_bytes: int
    """Bytes of blobs that no kept model shares."""
    refetch_s: float
    cost: float
    """bytes × refetch time ÷ recent use; the cheapest goes first."""


class LooseBlob(Message, frozen=True, kw_only=True):
    """A blob on disk, or part of one, that no known model names."""

    repo: str
    digest: str
    size_bytes: int


class RoomPlan(Message, frozen=True, kw_only=True):
    """Whether bytes fit into the budget, and what goes for them. A value; nothing has happened yet."""

    needed_bytes: int
    budget_bytes: int
    """0: nobody set one."""
    used_bytes: int
    reserved_bytes: int
    disk_free_bytes: int
    disk_kept_bytes: int = 0
    """Of these, what has to stay free."""
    quarantine_bytes: int = 0
    """The quarantine is emptied first, whole, when this is not 0."""
    loose: tuple[LooseBlob, ...] = ()
    """Go next."""
    evict: tuple[Eviction, ...] = ()
    """Go last, in this order."""
    kept: tuple[str, ...] = ()
    """Why what stays stays: `hf://…: in use by 2 leases`, `…: pinned`, `…: preload`."""
    refusal: str = ""
    """The arithmetic and the next step, when it does not fit; then nothing is evicted."""

    @property
    def fits(self) -> bool:
        return not self.refusal


class Usage(Message, frozen=True, kw_only=True):
    """`du`: the volume in numbers."""

    path: str
    budget_bytes: int
    """0: nobody set one; then only the disk bounds it."""
    used_bytes: int
    reserved_bytes: int
    partial_bytes: int
    quarantined_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    models: int
    blobs: int
    instances: int
    """Live cache instances on the volume."""


class PreloadItem(Message, frozen=True, kw_only=True):
    source: str
    priority: int = 0
    """Higher is fetched first and evicted last."""
    name: str = ""
    """NAMESPACE/NAME of the ModelDeployment, for status and messages."""


class PreloadList(Message, frozen=True, kw_only=True):
    """What should be on every node of a pool, as the operator writes it (`preload.json`); a file on one machine."""

    generation: int = 0
    items: tuple[PreloadItem, ...] = ()


class EnsureRequest(Message, frozen=True, kw_only=True):
    source: str
    lease: str = ""
    """Name of a lease to take in the same step (who uses the model); empty: none."""
    deadline_s: float = 0.0
    """After so long it has `failed`; the fetch goes on for others. 0: none, it takes as long as it takes."""


class LeaseRequest(Message, frozen=True, kw_only=True):
    """Kept for as long as the connection that asked is open."""

    source: str
    holder: str


class EvictRequest(Message, frozen=True, kw_only=True):
    sources: tuple[str, ...] = ()
    bytes: int = 0
    """Room to make instead of naming sources."""
    yes: bool = False
    """Without it the plan is answered and nothing changes."""


class NodeReport(Message, frozen=True, kw_only=True):
    """/v1/models: what this node has. Conductor and operator read it."""

    node: str
    usage: Usage
    models: tuple[CachedModel, ...] = ()
    fetching: tuple[Progress, ...] = ()
    failed: tuple[Progress, ...] = ()
    """Of the preload list: what could not be had, and why; tried again later."""


class NodeRefusal(Message, frozen=True, kw_only=True):
    """503 of an instance that cannot use its volume, and why; it tries again by itself."""

    error: str
    """Reason and message, for people."""
    node: str = ""
    reason: str = ""
    message: str = ""
