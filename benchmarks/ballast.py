"""Memory that the machine really has, for whoever is measured next.

A virtual machine hands memory that nobody uses back to its host after a few seconds, and pays about two seconds of
CPU for each GB when it is used again, whoever that is and whatever it does. So another process (this program) takes
and writes all memory that is free first, and lets go of it when the measurement begins: whatever the kernel hands out
then, it has.

    python -m benchmarks.ballast    prints a line when it has the memory, and another when it has let go of it: with
                                    the next line that it reads, or with its standard input
"""

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE_BYTES = 64 * 2**20
SPARE_BYTES = 10**9
"""Left for everybody else, so that nobody has to wait for memory meanwhile."""


@contextmanager
def ballast() -> Iterator[Callable[[], None]]:
    """Memory can be taken at no other cost than its own for two seconds after the call of what this gives."""
    command = [sys.executable, "-m", "benchmarks.ballast"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        said, asked = program.stdout, program.stdin

        def let_go() -> None:
            asked.write(b"\n")
            said.readline()

        if not said.readline():
            raise RuntimeError("the process that holds memory for the measurement ended; what it wrote is above")
        yield let_go


def take(size_bytes: int) -> mmap.mmap:
    """In huge pages, as fewer pieces come back to the kernel then. Writes all of it, or a page may be none."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, size_bytes)
    return memory


def free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def main() -> None:
    pieces = []
    while free_bytes() > SPARE_BYTES:
        pieces.append(take(PIECE_BYTES))
    print("here", flush=True)
    sys.stdin.readline()
    for piece in pieces:
        piece.close()
    print("gone", flush=True)


if __name__ == "__main__":
    main()
