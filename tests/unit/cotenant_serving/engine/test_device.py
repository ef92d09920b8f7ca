"""What a device says about this process; a missing CUDA device is an error and never a fallback."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from tests.builders.engine import MIB, echo_args

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.device import CudaDevice, open_device, visible_device


@dataclass
class FakeNvml:
    """The bindings' interface over devices given as {index or uuid: {pid: bytes}}."""

    devices: dict[Any, dict[int, int | None]] = field(default_factory=dict)
    broken: str = ""

    def nvmlInit(self) -> None:
        if self.broken:
            raise RuntimeError(self.broken)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        if uuid not in self.devices:
            raise RuntimeError("Not Found")
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        if self.broken:
            raise RuntimeError(self.broken)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.devices[handle].items()]


def cuda_args(index: int = 0) -> Any:
    return echo_args(device="cuda", device_index=index)


USE_BEFORE_AND_AFTER = f"""
from cotenant_serving.engine.device import CpuDevice
device = CpuDevice()
before = device.used_bytes()
kept = bytearray(b"x") * {64 * MIB}
print(before, device.used_bytes())
"""


def test_the_cpus_use_is_what_this_process_keeps_resident() -> None:
    """In a process of its own: here threads of other tests may let memory go meanwhile."""
    done = subprocess.run([sys.executable, "-c", USE_BEFORE_AND_AFTER], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 48 * MIB < after - before < 80 * MIB


def test_cuda_use_is_this_processs_own_not_its_neighbours() -> None:
    nvml = FakeNvml({0: {os.getpid(): 7 * MIB, 1: 900 * MIB}})
    assert open_device(cuda_args(), {}, nvml).used_bytes() == 7 * MIB


@pytest.mark.parametrize("processes", [{1: 900 * MIB}, {4711: None}])
def test_where_nvml_does_not_know_us_and_torch_is_not_started_nothing_is_used(
    processes: dict[int, int | None],
) -> None:
    assert CudaDevice(FakeNvml({0: processes}), 0, pid=4711).used_bytes() == 0


def test_a_driver_that_cannot_list_processes_is_not_an_error() -> None:
    assert CudaDevice(FakeNvml({0: {}}, broken="Not Supported"), 0, pid=1).used_bytes() == 0


def test_the_engine_sees_only_its_device() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "2,5"}
    open_device(cuda_args(1), environ, FakeNvml({index: {} for index in range(8)}))
    assert environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(
    ("current", "index", "expected"),
    [(None, 3, "3"), ("", 0, "0"), ("4", 0, "4"), ("4", 1, "1"), ("GPU-a,GPU-b", 1, "GPU-b"), ("MIG-x", 0, "MIG-x")],
)
def test_the_index_counts_the_visible_devices_else_all(current: str | None, index: int, expected: str) -> None:
    assert visible_device(current, index) == expected


@pytest.mark.parametrize(
    ("nvml", "environ", "cause"),
    [
        (FakeNvml(broken="Driver Not Loaded"), {}, "Driver Not Loaded"),
        (FakeNvml({0: {}}), {"CUDA_VISIBLE_DEVICES": "3"}, "NVML sees 1 device"),
        (FakeNvml({0: {}}), {"CUDA_VISIBLE_DEVICES": "GPU-gone"}, "Not Found"),
    ],
)
def test_cuda_without_its_device_fails_with_nvmls_own_words(
    nvml: FakeNvml, environ: dict[str, str], cause: str
) -> None:
    with pytest.raises(LoadError) as caught:
        open_device(cuda_args(), environ, nvml)
    assert caught.value.reason is Reason.NO_CUDA_DEVICE
    assert cause in caught.value.message
    assert "device: cpu" in caught.value.message
