"""What this machine has: host memory and CUDA devices. The only reader of NVML and /proc in the control plane."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cotenant_operator.plan import DeviceFacts
from cotenant_operator.schema import ClusterMetadata
from cotenant_operator.spec import GPUPool, GPUPoolSpec, Worker

MIB = 2**20
CPU_PART = 0.5
"""Of host memory, for models when no GPUPool says otherwise: the rest is for the system, Ray and the page cache."""
CUDA_PART = 0.95
"""Of a GPU's memory: the rest is the driver's and the display's."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_pool() -> GPUPool:
    """A pool named `default` from what there is: a group `gpu` when NVML finds GPUs, and always a group `cpu`."""
    workers = []
    memories, _ = cuda_memories()
    if memories:
        usable = int(min(memories) * CUDA_PART)
        workers.append(Worker(name="gpu", device="cuda", memory=_in_mib(usable), max=len(memories)))
    workers.append(Worker(name="cpu", device="cpu", memory=_in_mib(int(host_memory_bytes() * CPU_PART))))
    return GPUPool(metadata=ClusterMetadata(name="default"), spec=GPUPoolSpec(workers=tuple(workers)))


def device_memory(pool: GPUPool) -> Mapping[str, DeviceFacts]:
    """Worker group → devices that this machine has for it, and what one may use."""
    memories, problem = cuda_memories()
    facts: dict[str, DeviceFacts] = {}
    for worker in pool.spec.workers:
        taken_by = next((other.name for other in pool.spec.workers if other.device == worker.device), worker.name)
        if taken_by == worker.name:
            facts[worker.name] = _facts(worker, memories, problem)
        else:  # otherwise the same memory would be given away twice
            said = f"group {taken_by} has this machine's {worker.device} devices; one group of a kind on one machine"
            facts[worker.name] = DeviceFacts(count=0, memory_bytes=worker.memory, problem=said)
    return facts


def host_memory_bytes() -> int:
    """Memory of the host, or of the container when its limit is lower."""
    import psutil

    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text()))
    return total


def cuda_memories() -> tuple[Sequence[int], str]:
    """Bytes of each CUDA device that this process may see, and why there is none when there is none.

    In NVML's order, or in that of CUDA_VISIBLE_DEVICES, which the engines take their device from too.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        import pynvml
    except ImportError:
        return (), "the Python package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), f"NVML: {error}"
    try:
        names = [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
        if visible is not None:
            names = [name.strip() for name in visible.split(",") if name.strip() in names or "-" in name.strip()[1:]]
        handles = [_handle(pynvml, name) for name in names]
        memories = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles]
    except pynvml.NVMLError as error:
        return (), f"NVML: {error}"
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    hidden = "" if visible is None else f" among CUDA_VISIBLE_DEVICES={visible!r}"
    return memories, "" if memories else f"NVML finds no GPU{hidden}"


def _handle(nvml: Any, name: str) -> Any:
    """`0` or `GPU-…`, `MIG-…`."""
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)


def _facts(worker: Worker, memories: Sequence[int], problem: str) -> DeviceFacts:
    declared = worker.memory
    if worker.device == "cpu":
        # One machine has one memory, however many pods the group may have in a cluster.
        return DeviceFacts(count=1, memory_bytes=min(declared, host_memory_bytes()))
    if worker.sharing == "mig":
        return DeviceFacts(count=0, memory_bytes=declared, problem="MIG slices are not found on one machine yet")
    if not memories:
        return DeviceFacts(count=0, memory_bytes=declared, problem=problem)
    return DeviceFacts(count=min(worker.max, len(memories)), memory_bytes=min(declared, *memories))


def _in_mib(count: int) -> int:
    return count // MIB * MIB
