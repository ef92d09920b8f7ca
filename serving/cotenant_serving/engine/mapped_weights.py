"""Weights that are mapped from their files → memory of the process's own, without ever holding both.

A page of a mapping counts as memory of the process from the first read until the mapping ends, and that is when the
last tensor of its file is copied. Without what is done here a load would need its weights twice, and the guard would
end it although it fits its share.
"""

import ctypes
import mmap
from typing import Any

_MADV_PAGEOUT = 21
"""Linux 5.4: give back these pages now. What is mapped from a file is read again when it is needed, and memory of the
process's own stays (or goes to swap), so no mistake here can change a weight."""


def own_weights(model: Any) -> None:
    """Copies every parameter and buffer: somebody who writes to the files must not change or end what serves."""
    for tensor in (*model.parameters(), *model.buffers()):
        mapped = tensor.data
        tensor.data = mapped.clone()
        _give_back(mapped.data_ptr(), mapped.numel() * mapped.element_size())


def _give_back(address: int, size_bytes: int) -> None:
    """Of the pages that lie wholly inside. A kernel that does not know how keeps them, as it would have."""
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)
