"""NVIDIA GPUs, as the kernel and NVML tell them."""

import contextlib
import os
from pathlib import Path
from typing import Any

from cotenant_operator.doctor.snapshot import Gpus
from cotenant_operator.machine import cuda_memories
from cotenant_operator.quantity import show_bytes


def probe_gpus() -> Gpus:
    memories, problem = cuda_memories()
    files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not memories:
        return Gpus(device_files=files, problem=problem, visible=visible)
    driver, cuda, names = _nvml()
    shown = tuple(f"{name} ({show_bytes(size)})" for name, size in zip(names, memories, strict=False))
    return Gpus(device_files=files, names=shown, driver=driver, cuda=cuda, visible=visible)


def _nvml() -> tuple[str, tuple[int, int] | None, list[str]]:
    """Driver, the CUDA that it supports, names of all devices. NVML has just worked."""
    import pynvml

    driver, cuda, names = "unknown", None, []
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        cuda = (number // 1000, number % 1000 // 10)
        count = int(pynvml.nvmlDeviceGetCount())
        names = [_text(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]
        pynvml.nvmlShutdown()
    return driver, cuda, names


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
