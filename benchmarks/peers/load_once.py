"""One load of safetensors files by one of several ways, in a process of its own: prints one line of JSON.

    load_once.py WAY cold|warm RESIDENT_BYTES FILE...

`WAY`: `load_file` (safetensors.torch), `mapped` and `own` (cotenant_cache.tensors), `runai` (runai-model-streamer),
or `raw`: two threads that read blocks of 8 MiB past the page cache into one buffer each, and keep nothing.

Loaded means touched: of each tensor one byte of every 4096 is added up, the same for every way. A page that is not
there has to come for that, wherever it comes from. The sums of all ways must agree.

RESIDENT_BYTES are taken, written and given back before the clock starts. A virtual machine may hand memory that
nobody uses back to its host, and then pays up to a second of CPU for each GB at its next use, whoever that is; thus
all ways find memory that the machine has.
"""

import ctypes
import importlib
import json
import mmap
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

BLOCK_BYTES = 8 * 2**20
HUGE_BYTES = 2 * 2**20
PAGE_BYTES = 4096


def load_file(files: Sequence[str]) -> list[Any]:
    from safetensors.torch import load_file as load

    return [tensor for file in files for tensor in load(file).values()]


def mapped(files: Sequence[str]) -> list[Any]:
    return ours(files, own=False)


def own(files: Sequence[str]) -> list[Any]:
    return ours(files, own=True)


def ours(files: Sequence[str], *, own: bool) -> list[Any]:
    from pathlib import Path

    from cotenant_cache.tensors import load_tensors

    return list(load_tensors([Path(file) for file in files], own=own).tensors.values())


def runai(files: Sequence[str]) -> list[Any]:
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(list(files))
        return [tensor for _, tensor in streamer.get_tensors()]


def raw(files: Sequence[str]) -> list[Any]:
    descriptors = [os.open(file, os.O_RDONLY | os.O_DIRECT) for file in files]
    blocks = [(fd, at) for fd in descriptors for at in range(0, os.fstat(fd).st_size, BLOCK_BYTES)]
    left, lock = iter(blocks), threading.Lock()

    def read(left: Iterator[tuple[int, int]]) -> None:
        memory = mmap.mmap(-1, BLOCK_BYTES + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        skip = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % HUGE_BYTES
        buffer = memoryview(memory)[skip : skip + BLOCK_BYTES]
        while True:
            with lock:
                block = next(left, None)
            if block is None:
                return
            os.preadv(block[0], [buffer], block[1])

    threads = [threading.Thread(target=read, args=(left,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return []


WAYS: dict[str, Callable[[Sequence[str]], list[Any]]] = {
    "load_file": load_file,
    "mapped": mapped,
    "own": own,
    "runai": runai,
    "raw": raw,
}


def imported(way: str) -> None:
    """What a way imports is no part of its load."""
    import torch

    torch.set_num_threads(1)
    of_way = {"load_file": "safetensors.torch", "runai": "runai_model_streamer"}
    importlib.import_module(of_way.get(way, "cotenant_cache.tensors" if way != "raw" else "torch"))


def prepare(files: Sequence[str], cache: str) -> None:
    """Takes the files out of the page cache, or puts them into it. They must be on disk already."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while cache == "warm" and os.read(descriptor, BLOCK_BYTES):
            pass
        os.close(descriptor)


def make_resident(size_bytes: int) -> None:
    if size_bytes:
        memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size_bytes, PAGE_BYTES):
            memory[at] = 1
        memory.close()


def touch(tensors: Sequence[Any]) -> int:
    import torch

    return sum(
        int(tensor.reshape(-1).view(torch.uint8).numpy()[::PAGE_BYTES].sum(dtype="uint64"))
        for tensor in tensors
        if tensor.numel()
    )


def main(way: str, cache: str, resident_bytes: str, *files: str) -> None:
    imported(way)
    if cache == "warm":  # what has just been read is what a machine that serves has; a pause of seconds is not
        make_resident(int(resident_bytes))
        prepare(files, cache)
    else:
        prepare(files, cache)
        make_resident(int(resident_bytes))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    tensors = WAYS[way](files)
    checksum = touch(tensors)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "checksum": checksum, "tensors": len(tensors)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
