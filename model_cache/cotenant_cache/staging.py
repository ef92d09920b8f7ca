"""Blocks of files → tensors on another device, through pinned memory, while the next block is read."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from cotenant_cache.contract import BLOCK_BYTES
from cotenant_cache.weight_files import ALIGN_BYTES, WeightFile


class Lane:
    """Of one thread: two blocks that are filled in turn, and on CUDA a stream that empties them."""

    def __init__(self, device: Any, torch: Any) -> None:
        self._torch = torch
        self._cuda = device.type == "cuda"
        self._blocks = [_Staged(torch, pinned=self._cuda) for _ in range(2)]
        self._stream: Any = None
        if self._cuda:
            self._stream = torch.cuda.Stream(device)
            # The memory of the tensors may be what kernels of the usual stream have yet to finish with.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def carry(self, weight: WeightFile, begin: int, end: int, tensors: Sequence[Any]) -> None:
        """Bytes `begin` to `end` of the file into `tensors`: flat bytes on the device, one of each span, in order."""
        staged = self._blocks[0]
        self._blocks.reverse()
        staged.wait()
        weight.read(begin, end, staged.memory)
        if not self._cuda:
            self._scatter(weight, begin, end, staged.bytes, tensors)
            return
        with self._torch.cuda.stream(self._stream):
            self._scatter(weight, begin, end, staged.bytes, tensors)
            staged.copied = self._torch.cuda.Event()
            staged.copied.record(self._stream)

    def wait(self) -> None:
        """Until everything is on the device."""
        if self._cuda:
            self._stream.synchronize()

    def _scatter(self, weight: WeightFile, begin: int, end: int, source: Any, tensors: Sequence[Any]) -> None:
        first = bisect_right(weight.spans, begin, key=lambda span: span.end)
        for index in range(first, len(weight.spans)):
            span = weight.spans[index]
            if span.begin >= end:
                return
            low, high = max(begin, span.begin), min(end, span.end)
            part = source[low - begin : high - begin]
            tensors[index][low - span.begin : high - span.begin].copy_(part, non_blocking=self._cuda)


class _Staged:
    """BLOCK_BYTES of aligned memory, as bytes of torch and as a view to read into."""

    def __init__(self, torch: Any, *, pinned: bool) -> None:
        whole = torch.empty(BLOCK_BYTES + ALIGN_BYTES, dtype=torch.uint8, pin_memory=pinned)
        skip = -whole.data_ptr() % ALIGN_BYTES
        self.bytes = whole[skip : skip + BLOCK_BYTES]
        self.memory = memoryview(self.bytes.numpy())
        self.copied: Any = None

    def wait(self) -> None:
        """Until the last copy out of it has ended."""
        if self.copied is not None:
            self.copied.synchronize()
