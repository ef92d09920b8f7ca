"""safetensors files → torch tensors, straight into the memory or the device where they stay. Imports torch.

Three ways, each with a few threads:

- CPU, `own=False`: the files are mapped, in huge pages; those that are not in the page cache are read into it, each
  by one thread. Costs the least, and processes share the pages; but whoever cuts a file off ends the process, and
  whoever writes changes it.
- CPU, `own=True`: read into memory of the process's own, once, past the page cache when they are not in it.
- another device: read as above into a few pinned blocks and copied from there while the next are read.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from cotenant_cache.errors import UnsupportedArchitectureError
from cotenant_cache.headers import TensorSpan
from cotenant_cache.regions import Region
from cotenant_cache.staging import Lane
from cotenant_cache.weight_files import Block, WeightFile, aligned, blocks_of, share_out

THREADS = 4
REPORT_S = 0.2
MAPPED_BLOCK_BYTES = 32 * 2**20
"""The kernel reads in pieces of its own, whatever this is; larger ones are fewer calls."""
PAGE_BYTES = 4096
SAMPLED_PAGES = 64
"""One of so many is touched to see what a touch costs."""
SLOW_TOUCH_S = 4e-6
"""Of one page; misses in all caches take less, a host that has to find memory for it takes twice as long."""
_TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
}
"""Of the format's names. What is smaller than a byte has no dtype in torch whose shape is the file's."""
Progress = Callable[[int, int, float], None]
"""(bytes read, bytes of all files, bytes per second so far), from any thread."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load cost. `way`: `mapped`, `direct` or `buffered`, joined by `+` where files differ."""

    size_bytes: int
    seconds: float
    way: str

    @property
    def bytes_per_s(self) -> float:
        return self.size_bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LoadedTensors:
    """`tensors` by name; of a name that is in several files, the one of the last file."""

    tensors: dict[str, Any]
    report: LoadReport


def load_tensors(
    files: Sequence[Path],
    device: str = "cpu",
    *,
    own: bool = False,
    progress: Progress | None = None,
    threads: int = THREADS,
    clock: Callable[[], float] = time.monotonic,
) -> LoadedTensors:
    """Every tensor of `files`, checked against their headers. Blocks.

    Raises CorruptWeightsError (a file is damaged, or changed meanwhile), FileMissingError,
    UnsupportedArchitectureError (a dtype that torch lacks), MemoryError.
    """
    import torch

    tally = _Tally(progress, clock)
    mapped = device == "cpu" and not own
    with ExitStack() as opened:
        weights = []
        for file in files:
            weights.append(WeightFile(file, direct=not mapped))
            opened.callback(weights[-1].close)
        for weight in weights:
            _check_dtypes(weight, torch)
        tally.total_bytes = sum(weight.size_bytes for weight in weights)
        if device == "cpu":
            tensors = _into_memory(weights, mapped, threads, tally, torch)
        else:
            tensors = staged(weights, torch.device(device), threads, tally.add, torch)
        for weight in weights:
            weight.check_unchanged()
        ways = {"mapped" if mapped else "buffered" if weight.direct is None else "direct" for weight in weights}
    return LoadedTensors(tensors, LoadReport(tally.total_bytes, clock() - tally.began, "+".join(sorted(ways))))


def _into_memory(
    weights: Sequence[WeightFile], mapped: bool, threads: int, tally: "_Tally", torch: Any
) -> dict[str, Any]:
    regions = []
    for weight in weights:
        with weight.readable():
            regions.append(Region(weight.size_bytes, weight.descriptor if mapped else None))

    def take(block: Block) -> None:
        weight, region = weights[block.index], regions[block.index]
        if mapped:
            with weight.readable():
                region.populate(block.begin, block.end)
            _touch(region.block(block.begin, block.end), torch)
        else:
            weight.read(block.begin, block.end, region.block(block.begin, aligned(block.end)))
        tally.add(block.end - block.begin)

    there = [mapped and weight.cached for weight in weights]  # faults of what is in memory cost less than a look
    tally.add(sum(weight.size_bytes for weight, skip in zip(weights, there, strict=True) if skip))
    if mapped:  # a file is read in order by one thread, so that the kernel reads ahead of it
        absent = [at for at, skip in enumerate(there) if not skip]
        runs = [blocks_of(at, weights[at].size_bytes, MAPPED_BLOCK_BYTES) for at in absent]
        share_out(runs, [take] * min(threads, len(runs)))
    else:
        share_out(_any_order(weights), [take] * threads)
    return {
        span.name: _tensor(region.piece(span.begin, span.end), span, torch)
        for weight, region in zip(weights, regions, strict=True)
        for span in weight.spans
    }


def _any_order(weights: Sequence[WeightFile]) -> Iterator[Iterable[Block]]:
    """Each block of each file by whichever thread is free."""
    for index, weight in enumerate(weights):
        for block in blocks_of(index, weight.size_bytes):
            yield (block,)


def _touch(block: memoryview, torch: Any) -> None:
    """What a virtual machine has to be given by its host comes now, while the disk is waited for, and not when the
    model is first computed. Only if there is such: a byte of a few pages tells, and then one of each page asks."""
    pages = torch.frombuffer(block, dtype=torch.uint8)[::PAGE_BYTES]
    few = pages[::SAMPLED_PAGES]
    began = time.perf_counter()
    few.sum()
    if time.perf_counter() - began > len(few) * SLOW_TOUCH_S:
        pages.sum()


def _tensor(piece: memoryview, span: TensorSpan, torch: Any) -> Any:
    dtype = getattr(torch, _TORCH_NAMES[span.dtype])
    if span.begin == span.end:
        return torch.empty(span.shape, dtype=dtype)
    raw = torch.frombuffer(piece, dtype=torch.uint8)
    if span.begin % dtype.itemsize:
        raw = raw.clone()  # old files may begin anywhere, and torch computes on whole steps only
    return raw.view(dtype).view(span.shape)


def staged(
    weights: Sequence[WeightFile], device: Any, threads: int, done: Callable[[int], None], torch: Any
) -> dict[str, Any]:
    """Tensors on `device`. Beside them it takes two blocks of memory of each thread."""
    raw = [
        [torch.empty(span.end - span.begin, dtype=torch.uint8, device=device) for span in weight.spans]
        for weight in weights
    ]
    lanes = [Lane(device, torch) for _ in range(threads)]

    def worker(lane: Lane) -> Callable[[Block], None]:
        def take(block: Block) -> None:
            weight = weights[block.index]
            lane.carry(weight, block.begin, block.end, raw[block.index])
            done(block.end - block.begin)

        return take

    try:
        share_out(_any_order(weights), [worker(lane) for lane in lanes])
    finally:
        for lane in lanes:
            lane.wait()
    return {
        span.name: flat.view(getattr(torch, _TORCH_NAMES[span.dtype])).view(span.shape)
        for weight, tensors in zip(weights, raw, strict=True)
        for span, flat in zip(weight.spans, tensors, strict=True)
    }


def _check_dtypes(weight: WeightFile, torch: Any) -> None:
    for span in weight.spans:
        if not hasattr(torch, _TORCH_NAMES.get(span.dtype, "none")):
            raise UnsupportedArchitectureError(
                f"{weight.path}: tensor {span.name!r} has dtype {span.dtype}, which torch {torch.__version__} has no "
                "type for; use weights in another precision"
            )


class _Tally:
    """Counts bytes of all threads; tells at most every REPORT_S, and the last byte."""

    def __init__(self, progress: Progress | None, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._lock = Lock()
        self._done_bytes = 0
        self._told_at = self.began = clock()
        self.total_bytes = 0

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._done_bytes += size_bytes
            now = self._clock()
            last = self._done_bytes >= self.total_bytes
            if self._progress is None or (now - self._told_at < REPORT_S and not last):
                return
            self._told_at = now
            rate = self._done_bytes / max(1e-9, now - self.began)
            self._progress(self._done_bytes, self.total_bytes, rate)
