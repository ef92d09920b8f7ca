"""Memory that the machine really has, for whoever is measured next.

A virtual machine hands memory that nobody uses back to its host within a moment, and pays up to two seconds of CPU
for each GB when it is used again, whoever that is and whatever it does. So another process (this program) takes and
writes memory first, and then gives it back piece by piece, as fast as it is taken: the kernel hands out first what it
got last, so that what is measured pays little or nothing for it. It does not always: what is free in another zone may
be taken instead.

    python -m benchmarks.ballast BYTES    prints a line when it has them, and gives back from the next line that it
                                          reads on; ends with its standard input
"""

import ctypes
import mmap
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE_BYTES = 64 * 2**20
AHEAD = 2
"""Pieces that are free before anybody needs them."""
LOOK_S = 0.001
"""A disk reads about 2 MiB meanwhile."""


@contextmanager
def ballast(size_bytes: int) -> Iterator[Callable[[], None]]:
    """So many bytes of memory can be taken at no cost from the call of what this gives until it ends."""
    command = [sys.executable, "-m", "benchmarks.ballast", str(size_bytes)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        said, asked = program.stdout, program.stdin

        def give_back() -> None:
            asked.write(b"\n")
            said.readline()

        if not said.readline():
            raise RuntimeError(f"{size_bytes} bytes of memory cannot be had to measure with; try a smaller --gb")
        yield give_back


def take(size_bytes: int) -> mmap.mmap:
    """In huge pages, as fewer pieces come back to the kernel then. Writes all of it, or a page may be none."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, size_bytes)
    return memory


def free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def main(size_bytes: int) -> None:
    pieces = [take(PIECE_BYTES) for _ in range(-(-size_bytes // PIECE_BYTES))]
    print("here", flush=True)
    if not sys.stdin.readline():
        return
    before = free_bytes()
    for _ in range(AHEAD):
        pieces.pop().close()
    print("giving back", flush=True)
    while pieces and not select.select([0], [], [], LOOK_S)[0]:
        taken = before - free_bytes()
        for _ in range(min(len(pieces), taken // PIECE_BYTES + AHEAD)):
            pieces.pop().close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
