"""What this machine has, with NVML's Python bindings as they are called."""

import sys
from types import SimpleNamespace

import pytest

from cotenant_operator import machine
from cotenant_operator.ray_head import command
from cotenant_operator.spec import GPUPool

GIB = 1024**3


class FakeNvml:
    """The part of `pynvml` that is used; `memories` are bytes of each GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, *memories: int, broken: str = "") -> None:
        self.memories, self.broken, self.open = memories, broken, 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError(self.broken)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.memories)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=self.memories[handle])


@pytest.fixture
def nvml(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(*memories: int, broken: str = "") -> FakeNvml:
        fake = FakeNvml(*memories, broken=broken)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


def pool(*workers: dict) -> GPUPool:
    return GPUPool.model_validate({"metadata": {"name": "default"}, "spec": {"workers": list(workers)}})


def test_without_a_gpu_the_default_pool_is_half_of_the_host_memory(nvml):
    nvml(broken="Driver Not Loaded")
    (worker,) = machine.default_pool().spec.workers
    assert (worker.name, worker.device) == ("cpu", "cpu")
    assert worker.memory == machine.host_memory_bytes() // 2 // 2**20 * 2**20


def test_with_gpus_the_default_pool_prefers_them(nvml):
    fake = nvml(80 * GIB, 80 * GIB)
    gpu, cpu = machine.default_pool().spec.workers
    assert (gpu.device, gpu.max, cpu.device) == ("cuda", 2, "cpu")
    assert gpu.memory == 76 * GIB
    assert fake.open == 0


def test_a_cuda_group_without_cuda_says_what_nvml_said(nvml):
    nvml(broken="Driver Not Loaded")
    facts = machine.device_memory(pool({"name": "gpu", "device": "cuda", "memory": "80Gi"}))["gpu"]
    assert (facts.count, facts.problem) == (0, "NVML: Driver Not Loaded")


def test_a_group_gets_no_more_devices_and_bytes_than_there_are(nvml):
    nvml(24 * GIB, 80 * GIB)
    facts = machine.device_memory(pool({"name": "gpu", "device": "cuda", "memory": "80Gi", "max": 8}))["gpu"]
    assert (facts.count, facts.memory_bytes) == (2, 24 * GIB)


def test_one_machine_has_one_cpu_memory_whatever_max_says(nvml):
    nvml(broken="no")
    facts = machine.device_memory(pool({"name": "cpu", "device": "cpu", "memory": "1Gi", "max": 5}))["cpu"]
    assert (facts.count, facts.memory_bytes) == (1, GIB)


def test_ray_gets_one_resource_for_each_group_that_has_devices(nvml, tmp_path):
    nvml(24 * GIB)
    devices = machine.device_memory(
        pool(
            {"name": "gpu", "device": "cuda", "memory": "24Gi"},
            {
                "name": "mig",
                "device": "cuda",
                "resource": "nvidia.com/mig-1g.10gb",
                "sharing": "mig",
                "memory": "9Gi",
            },
        )
    )
    line = command(6379, tmp_path, devices, cuda_devices=1)
    assert '--resources={"share_gpu_": 1}' in line
    assert "--num-gpus=1" in line
    assert not any("token" in word for word in line)


@pytest.mark.parametrize(
    ("visible", "sizes"),
    [("1", [24]), ("1,0", [24, 80]), ("GPU-1", [24]), ("", []), ("-1", []), ("7", [])],
)
def test_only_visible_gpus_count_in_their_order(nvml, monkeypatch, visible, sizes):
    nvml(80 * GIB, 24 * GIB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    memories, problem = machine.cuda_memories()
    assert [memory // GIB for memory in memories] == sizes
    assert sizes or "CUDA_VISIBLE_DEVICES" in problem


def test_two_groups_of_one_kind_do_not_get_the_same_memory(nvml):
    nvml(broken="no")
    two = pool({"name": "a", "device": "cpu", "memory": "1Gi"}, {"name": "b", "device": "cpu", "memory": "1Gi"})
    facts = machine.device_memory(two)
    assert (facts["a"].count, facts["b"].count) == (1, 0)
    assert "group a" in facts["b"].problem
