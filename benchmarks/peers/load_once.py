"""Loads of safetensors files by one of several ways, in a process of its own.

    load_once.py WAY CACHE TIMES FILE...    prints a line of JSON

`CACHE`: before each load the files are put out of the page cache (`cold`), or read into it (`warm`).

`WAY`: `load_file` (safetensors.torch), `mapped` and `own` (cotenant_cache.tensors), `runai` (runai-model-streamer),
or `raw`: two threads that read blocks of 8 MiB past the page cache into one buffer each, and keep nothing.

Loaded means touched: of each tensor one byte of every 4096 is added up, the same for every way. A page that is not
there has to come for that, wherever it comes from. The sums of all ways must agree.

Of several TIMES the least CPU and the least time count. A virtual machine hands memory that nobody uses back to its
host after two seconds or so, and pays up to two seconds of CPU for each GB when it is used again, whoever that is and
whatever it does. One load finds such memory and another that of the load before it, so all but the least measure the
host.
"""

import ctypes
import gc
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
    """What a way imports is no part of its load, nor is looking through it for garbage while it loads."""
    import torch

    torch.set_num_threads(1)
    of_way = {"load_file": "safetensors.torch", "runai": "runai_model_streamer"}
    importlib.import_module(of_way.get(way, "cotenant_cache.tensors" if way != "raw" else "torch"))
    gc.collect()
    gc.freeze()


def touch(tensors: Sequence[Any]) -> int:
    import torch

    return sum(
        int(tensor.reshape(-1).view(torch.uint8).numpy()[::PAGE_BYTES].sum(dtype="uint64"))
        for tensor in tensors
        if tensor.numel()
    )


def measured(way: str, files: Sequence[str]) -> tuple[float, float, int, int]:
    """→ seconds of the clock and of all CPUs, checksum, tensors. Nothing of the load is left."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    tensors = WAYS[way](files)
    checksum = touch(tensors)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, checksum, len(tensors)


def put(cache: str, files: Sequence[str]) -> None:
    """Out of the page cache, or into it. The files must be on disk."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        if cache == "cold":
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while os.read(descriptor, BLOCK_BYTES):
                pass
        os.close(descriptor)


def main(way: str, cache: str, times: str, *files: str) -> None:
    imported(way)
    loads = []
    for _ in range(int(times)):
        put(cache, files)
        loads.append(measured(way, files))
    wall_s, cpu_s = (min(load[at] for load in loads) for at in (0, 1))
    *_, checksum, tensors = loads[-1]
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "checksum": checksum, "tensors": tensors}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
