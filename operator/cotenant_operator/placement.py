"""One model against one pool: which worker groups an engine may run in, with which share, or why in none. Pure."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cotenant_operator.estimate import PAGE_TOKENS, Estimate
from cotenant_operator.planned import DeviceFacts, Refusal
from cotenant_operator.quantity import as_quantity, show_bytes
from cotenant_operator.spec import GpuShare, Worker
from cotenant_serving.contract import Candidate, DeviceKind, Reason


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a user could make smaller; 0 for a task that does not have it."""

    context_tokens: int = 0
    max_batch: int = 0


Estimator = Callable[[DeviceKind, Sizes], Estimate]


@dataclass(frozen=True, slots=True)
class Placement:
    device: DeviceKind
    candidates: tuple[Candidate, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class _Offer:
    """What one group would give, before it is known whether the model fits in it."""

    worker: Worker
    memory_bytes: int
    share_bytes: int
    estimate: Estimate
    estimator: Callable[[Sizes], Estimate]

    @property
    def fits(self) -> bool:
        return self.estimate.floor_bytes <= self.share_bytes <= self.memory_bytes

    def fits_with(self, sizes: Sizes) -> bool:
        """Whether it would, if these were the sizes."""
        return self.estimator(sizes).floor_bytes <= min(self.share_bytes, self.memory_bytes)


def place(
    workers: Sequence[Worker],
    devices: Mapping[str, DeviceFacts],
    *,
    gpu: GpuShare | None,
    estimator: Estimator,
    sizes: Sizes,
    pool: str,
) -> Placement | Refusal:
    """The first group in which the share fits decides the kind of device; all groups of that kind are candidates.

    A group whose device is missing still decides: a model for cuda never lands on the CPU because of a broken
    driver. It is refused with what the driver said.
    """
    eligible = [worker for worker in workers if gpu is None or gpu.mig is None or worker.mig_profile == gpu.mig]
    if not eligible:
        return _no_such_profile(workers, gpu, pool)
    offers = [
        _offer(worker, devices.get(worker.name), gpu, partial(estimator, worker.device), sizes) for worker in eligible
    ]
    fitting = [offer for offer in offers if offer.fits]
    if not fitting:
        return _does_not_fit(offers, gpu, sizes, pool)
    kind = fitting[0].worker.device
    chosen = [offer for offer in fitting if offer.worker.device == kind]
    present = [offer for offer in chosen if not _problem(devices.get(offer.worker.name))]
    if not present:
        return _no_device(chosen[0].worker, devices, pool)
    return Placement(kind, tuple(_candidate(offer) for offer in present), present[0].estimate)


def memory_of(worker: Worker, device: DeviceFacts | None) -> int:
    """What one device of the group may use: what the pool says, and not more than there is."""
    if device is None or _problem(device) or device.memory_bytes <= 0:
        return worker.memory
    return min(worker.memory, device.memory_bytes)


def _problem(device: DeviceFacts | None) -> str:
    """Groups that nothing is known of (in a cluster, before a pod is up) have none."""
    if device is None or (device.count > 0 and not device.problem):
        return ""
    return device.problem or "this machine has none"


def _offer(
    worker: Worker,
    device: DeviceFacts | None,
    gpu: GpuShare | None,
    estimator: Callable[[Sizes], Estimate],
    sizes: Sizes,
) -> _Offer:
    memory, estimate = memory_of(worker, device), estimator(sizes)
    return _Offer(worker, memory, _share(gpu, memory, estimate), estimate, estimator)


def _share(gpu: GpuShare | None, memory_bytes: int, estimate: Estimate) -> int:
    if gpu is None:
        return max(estimate.floor_bytes, min(estimate.wanted_bytes, memory_bytes))
    if gpu.memory is not None:
        return gpu.memory
    if gpu.fraction is not None:
        return int(gpu.fraction * memory_bytes)
    return memory_bytes


def _candidate(offer: _Offer) -> Candidate:
    return Candidate(
        group=offer.worker.name,
        share_bytes=offer.share_bytes,
        kv_cache_bytes=offer.estimate.kv_cache_bytes_in(offer.share_bytes),
    )


def _no_such_profile(workers: Sequence[Worker], gpu: GpuShare | None, pool: str) -> Refusal:
    profiles = [worker.mig_profile for worker in workers if worker.mig_profile]
    wanted = gpu.mig if gpu else ""
    return Refusal(
        Reason.DOES_NOT_FIT,
        f"asked gpu.mig {wanted}; pool {pool} has {'MIG profiles ' + ', '.join(profiles) if profiles else 'no MIG'}; "
        "set one of them, or gpu.memory",
    )


def _no_device(worker: Worker, devices: Mapping[str, DeviceFacts], pool: str) -> Refusal:
    reason = Reason.NO_CUDA_DEVICE if worker.device == "cuda" else Reason.NO_DEVICE
    return Refusal(
        reason,
        f"group {worker.name} of pool {pool} has device {worker.device}, and there is none: "
        f"{_problem(devices.get(worker.name))}; repair the driver, or use a pool with another device",
    )


def _does_not_fit(offers: Sequence[_Offer], gpu: GpuShare | None, sizes: Sizes, pool: str) -> Refusal:
    """Judged against the group that comes closest: the one with the most memory."""
    largest = max(offers, key=lambda offer: offer.memory_bytes)
    estimate = largest.estimate
    parts = [
        f"needs {show_bytes(estimate.floor_bytes)}: {estimate.parts()}",
        f"asked {_asked(gpu)}",
        f"the largest share of pool {pool} is {show_bytes(largest.memory_bytes)} on group {largest.worker.name}",
        _what_would_fit(largest, gpu, sizes),
    ]
    return Refusal(Reason.DOES_NOT_FIT, "; ".join(parts))


def _asked(gpu: GpuShare | None) -> str:
    if gpu is None:
        return "nothing (gpu is not set)"
    if gpu.memory is not None:
        return f"gpu.memory {show_bytes(gpu.memory)}"
    if gpu.fraction is not None:
        return f"gpu.fraction {gpu.fraction:g}"
    return f"gpu.mig {gpu.mig}" if gpu.mig else "gpu.whole"


def _what_would_fit(offer: _Offer, gpu: GpuShare | None, sizes: Sizes) -> str:
    floor = offer.estimate.floor_bytes
    steps = []
    if floor <= offer.memory_bytes:
        steps.append(_larger_share(offer, gpu))
    batch = _largest(lambda size: offer.fits_with(replace(sizes, max_batch=size)), 1, sizes.max_batch)
    context = _largest(
        lambda size: offer.fits_with(replace(sizes, context_tokens=size)), PAGE_TOKENS, sizes.context_tokens
    )
    if batch:
        steps.append(f"lower engine.maxBatch to {batch}")
    if context:
        steps.append(f"lower engine.contextTokens to {context}")
    if not steps:
        steps.append(f"use a pool with a device of at least {show_bytes(floor)}, or a smaller model")
    return " or ".join(steps)


def _largest(fits: Callable[[int], bool], least: int, above: int) -> int:
    """The largest number from `least` up to and without `above` that fits as all smaller ones do; 0: none does."""
    if above <= least or not fits(least):
        return 0
    return least + bisect_left(range(least + 1, above), True, key=lambda size: not fits(size))


def _larger_share(offer: _Offer, gpu: GpuShare | None) -> str:
    needed = offer.estimate.floor_bytes
    if gpu is not None and gpu.fraction is not None:
        hundredths = -(-needed * 100 // offer.memory_bytes)
        return f"set gpu.fraction: {hundredths / 100:g}"
    quantity = as_quantity(needed)
    return f"set gpu.memory: {quantity}"
