"""Address ranges of this process that tensors lie in: of its own, or mapped from a file, in huge pages if it can be.

With pages of 2 MiB there are 512 times fewer faults than with those of 4 KiB. The kernel makes them only where the
address and, for a file, the offset are multiples of 2 MiB, which Python's `mmap` cannot ask for.
"""

import ctypes
import errno
import mmap
import os
import weakref

HUGE_BYTES = 2 * 2**20
GIVE_BACK_BYTES = 2**20
"""Memory of smaller tensors goes with its region: giving it back costs more than it holds."""
_MAP_FIXED = 0x10
_MADV_POPULATE_READ = 22
"""Linux 5.14."""

_ANY_BYTES = ctypes.c_ubyte * 2**46
"""One type for regions of any size: each type that ctypes makes is a cycle, which only a garbage collection frees."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


class Region:
    """Bytes from 0 to `size_bytes`, writable; what is written into a mapped file stays in this process.

    Lives as long as anything that `piece` gave. Raises MemoryError, or OSError for a file that cannot be mapped.
    """

    def __init__(self, size_bytes: int, file: int | None = None) -> None:
        """`file`: a descriptor to map; without one the memory is the process's own."""
        self.size_bytes = size_bytes
        room = -(-max(1, size_bytes) // HUGE_BYTES) * HUGE_BYTES
        taken = _map(0, room + HUGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_ANONYMOUS, -1)
        release = weakref.finalize(self, _libc.munmap, taken, room + HUGE_BYTES)
        release.atexit = False  # threads that still compute at exit must not lose what they read
        self.address = -(-taken // HUGE_BYTES) * HUGE_BYTES
        if file is not None and size_bytes:
            _map(self.address, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, _MAP_FIXED, file)
        if size_bytes >= HUGE_BYTES:
            _libc.madvise(self.address, room, mmap.MADV_HUGEPAGE)  # a kernel without them takes small ones
        whole = room if file is None else size_bytes
        self._view = memoryview(_ANY_BYTES.from_address(self.address))[:whole]

    def block(self, begin: int, end: int) -> memoryview:
        """To read into, while the region is held. Its own memory goes on to a multiple of 2 MiB."""
        return self._view[begin:end]

    def piece(self, begin: int, end: int) -> memoryview:
        """For one tensor: when the last of it goes, its whole pages are given back at once, before the region is."""
        view = self._view[begin:end]
        large = end - begin >= GIVE_BACK_BYTES
        gone = weakref.finalize(view, self._give_back if large else self._keep, begin, end)
        gone.atexit = False
        return view

    def populate(self, begin: int, end: int) -> None:
        """Reads this part of a mapped file and maps it, so that no fault is left to wait for.

        From the file's begin to its end, by one thread: the kernel reads ahead of who reads in order, in pieces of
        2 MiB, and guesses wrong for several threads.

        Raises OSError: EFAULT when the file has become shorter or the disk reports an error.
        """
        while _libc.madvise(self.address + begin, end - begin, _MADV_POPULATE_READ):
            code = ctypes.get_errno()
            if code == errno.EINVAL:
                return  # an older kernel: pages come when they are first read
            if code not in (errno.EINTR, errno.EAGAIN):
                raise OSError(code, os.strerror(code))

    def _give_back(self, begin: int, end: int) -> None:
        first = -(-(self.address + begin) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self.address + end) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            _libc.madvise(first, last - first, mmap.MADV_DONTNEED)

    def _keep(self, begin: int, end: int) -> None:
        """Nothing: that this is bound to the region is what keeps it for as long as the piece."""


def _map(address: int, size_bytes: int, protection: int, flags: int, file: int) -> int:
    found = _libc.mmap(address or None, size_bytes, protection, mmap.MAP_PRIVATE | flags, file, 0)
    if found == _FAILED:
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise MemoryError(f"{size_bytes} bytes for weights: {os.strerror(code)}")
        raise OSError(code, os.strerror(code))
    return int(found)
