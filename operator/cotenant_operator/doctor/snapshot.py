"""What a look at the machine has seen: plain values, nothing judged yet."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    wanted: str
    """As pyproject.toml says: `<1,>=0.34`."""
    version: str | None
    """None: not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    device_files: int = 0
    """/dev/nvidia0, /dev/nvidia1, …"""
    names: tuple[str, ...] = ()
    """With memory, as NVML tells them."""
    problem: str = ""
    """Why NVML tells none."""
    driver: str = ""
    cuda: tuple[int, int] | None = None
    """The newest CUDA that the driver supports."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES."""


@dataclass(frozen=True, slots=True)
class Torch:
    version: str
    cuda: str | None
    """Of its build: `13.2`; None: built for the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFacts:
    path: str
    exists: bool = False
    foreign: bool = False
    """It belongs to another user."""
    writable: bool = True
    open_to_others: tuple[str, ...] = ()
    """Paths in it that others may read, write or enter."""
    disk_free_bytes: int = 0
    running_pid: int | None = None
    """The `up` that runs on it."""
    dead_pid: int | None = None
    """An `up` that was ended by force and has left its files."""
    leftovers: int = 0
    """Processes that it has left."""
    ray_temp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    endpoint: str
    problem: str = ""
    """Why it does not answer."""
    offline: bool = False
    token: Literal["none", "good", "refused", "unknown"] = "none"  # noqa: S105 - what it thinks of it
    clock_skew_s: float | None = None
    """This machine's clock less the hub's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    system: str = "Linux"
    python: tuple[int, int, int] = (3, 11, 0)
    cpus: int = 1
    extras: dict[str, tuple[Package, ...]] = field(default_factory=dict)
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    shm_bytes: int | None = None
    """Free in /dev/shm; None: there is none."""
    open_files: int = 0
    open_files_most: int = 0
    engine_ports_free: int = 0
    gateway_port: int = 8080
    gateway_port_free: bool = True
    gpus: Gpus = Gpus()
    torch: Torch | None = None
    state: StateFacts
    now_s: float = 0.0
    installed_s: float = 0.0
    """When cotenant's own files were written."""
    hub: Hub | None = None
    """None: not asked."""
