"""Locks of the board's rows: one holder among all processes, and a killed one leaves none behind.

`MutexLock` is a mutex of the C library in the row's own memory, shared by processes and robust: taking it while it is
free is no system call, and the kernel gives it to the next one when its holder is killed. `FileLock` is what there is
without: a byte-range lock of the board's file, two system calls.
"""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from functools import partial

MUTEX_BYTES = 64
"""Room for one; the C libraries of Linux need 40 to 48."""
_ERRORCHECK, _SHARED, _ROBUST = 2, 1, 1


class RowLock:
    """A context manager. Who cannot afford its two calls writes them out:

    if busy := lock.try_lock():
        lock.wait(busy)
    try: ...
    finally: lock.unlock()
    """

    __slots__ = ("try_lock", "unlock")

    def __init__(self, try_lock: Callable[[], int], unlock: Callable[[], object]) -> None:
        """`try_lock` gives 0 when this process has the lock now, and otherwise what `wait` is told."""
        self.try_lock, self.unlock = try_lock, unlock

    def wait(self, busy: int) -> None:
        """Returns when this process has the lock. Raises OSError when it never will."""
        raise OSError(busy, os.strerror(busy))

    def __enter__(self) -> None:
        if busy := self.try_lock():
            self.wait(busy)

    def __exit__(self, *problem: object) -> None:
        self.unlock()


NO_LOCK = RowLock(int, int)
"""For a process that is alone."""


class FileLock(RowLock):
    __slots__ = ()

    def __init__(self, file: int, at: int) -> None:
        super().__init__(partial(_lock_byte, file, at), partial(fcntl.lockf, file, fcntl.LOCK_UN, 1, at))


class MutexLock(RowLock):
    __slots__ = ("_memory", "_mutex")

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        """Of the mutex at this offset, which `make_mutex` has made."""
        # As long as this is there nobody can take the memory away.
        self._memory = ctypes.c_char.from_buffer(memory, at)
        self._mutex = ctypes.c_void_p(ctypes.addressof(self._memory))
        super().__init__(
            partial(_held.pthread_mutex_trylock, self._mutex), partial(_held.pthread_mutex_unlock, self._mutex)
        )

    def wait(self, busy: int) -> None:
        if busy == errno.EBUSY:
            busy = _let_go.pthread_mutex_lock(self._mutex)
        if busy == errno.EOWNERDEAD:  # ours now; what it protects is whole after every single store
            busy = _held.pthread_mutex_consistent(self._mutex)
        if busy:
            raise OSError(busy, os.strerror(busy))


def make_mutex(memory: mmap.mmap, at: int) -> bool:
    """Makes one where nobody uses it yet. False: this system has none of this kind."""
    attributes = (ctypes.c_char * MUTEX_BYTES)()
    mutex = (ctypes.c_char * MUTEX_BYTES).from_buffer(memory, at)
    try:
        return not (
            _held.pthread_mutexattr_init(attributes)
            or _held.pthread_mutexattr_setpshared(attributes, _SHARED)
            or _held.pthread_mutexattr_setrobust(attributes, _ROBUST)
            or _held.pthread_mutexattr_settype(attributes, _ERRORCHECK)
            or _held.pthread_mutex_init(mutex, attributes)
        )
    except AttributeError:
        return False


def _lock_byte(file: int, at: int) -> int:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
    return 0


_held = ctypes.PyDLL(None)
"""The C library, called without letting other threads run: only for what takes no time."""
_let_go = ctypes.CDLL(None)
