"""The device that an engine shares: how much of it this process uses. CPU by RSS, CUDA by NVML."""

import os
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol

from cotenant_serving.contract import EngineArgs, Reason
from cotenant_serving.engine.base import LoadError

CUDA_CONTEXT_BYTES = 500 * 2**20
"""Estimate of one CUDA context with torch's kernels, used where NVML cannot name this process."""
NEXT_STEP = "Use workers with `device: cpu`, or start this where an NVIDIA driver and a CUDA build of torch are."


class Device(Protocol):
    def used_bytes(self) -> int:
        """Device memory in use by this process now."""


class Nvml(Protocol):
    """The part of `pynvml` that is used; `nvmlInit` and the rest raise `NVMLError`."""

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]: ...  # noqa: N802


class CpuDevice:
    """Host memory is the shared memory: what this process keeps resident."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()

    def used_bytes(self) -> int:
        return int(self._process.memory_info().rss)


class CudaDevice:
    """One GPU or MIG slice. Where NVML does not know our PID (a PID namespace), torch's own count is used."""

    def __init__(self, nvml: Nvml, handle: Any, pid: int) -> None:
        self._nvml = nvml
        self._handle = handle
        self._pid = pid

    def used_bytes(self) -> int:
        reported = self._process_bytes()
        return reported if reported is not None else _torch_bytes()

    def _process_bytes(self) -> int | None:
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except Exception:  # not supported here (some MIG and vGPU drivers): every NVML error means the same
            return None
        for process in processes:
            if process.pid == self._pid and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
        return None


def _torch_bytes() -> int:
    # Never import torch here: this runs in the guard's thread, before and while the model loads.
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return 0
    return int(cuda.memory_reserved()) + CUDA_CONTEXT_BYTES


def visible_device(current: str | None, index: int) -> str:
    """Value for CUDA_VISIBLE_DEVICES: the `index`-th of those visible now, else the index in NVML's order. Pure."""
    entries = [entry.strip() for entry in (current or "").split(",") if entry.strip()]
    return entries[index] if index < len(entries) else str(index)


def open_device(args: EngineArgs, environ: MutableMapping[str, str], nvml: Nvml | None = None) -> Device:
    """The device of this engine; for cuda also makes it the only visible one, so call it before torch is imported.

    Raises LoadError(NoCudaDevice) when it is not there: nothing falls back to the CPU.
    """
    if args.spec.device == "cpu":
        return CpuDevice()
    visible = visible_device(environ.get("CUDA_VISIBLE_DEVICES"), args.device_index)
    try:
        bindings = nvml or _pynvml()
        bindings.nvmlInit()
        handle = _handle(bindings, visible)
    except Exception as error:  # ImportError, or any NVMLError: all mean that there is no device to use
        raise LoadError(
            Reason.NO_CUDA_DEVICE,
            f"{args.spec.model} asks for device cuda, and NVML finds no device {visible} on this machine: "
            f"{type(error).__name__}: {error}. {NEXT_STEP}",
        ) from error
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # CUDA then counts as NVML does
    environ["CUDA_VISIBLE_DEVICES"] = visible
    return CudaDevice(bindings, handle, os.getpid())


def _handle(nvml: Nvml, visible: str) -> Any:
    if not visible.isdigit():
        return nvml.nvmlDeviceGetHandleByUUID(visible)
    count = nvml.nvmlDeviceGetCount()
    if int(visible) >= count:
        raise LookupError(f"NVML sees {count} device(s)")
    return nvml.nvmlDeviceGetHandleByIndex(int(visible))


def _pynvml() -> Nvml:
    import pynvml

    bindings: Nvml = pynvml
    return bindings
