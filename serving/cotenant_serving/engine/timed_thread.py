"""A thread for blocking work in Python, parts of which have a bound on their time."""

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.25
"""How often the event loop looks, while there is work."""


class TimedThread:
    """Work is done in turn. Of a part that takes too long, it is broken off between two instructions of Python: one
    long operation in C goes on to its end first."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._clock = clock
        self._lock = threading.Lock()
        self._timed: tuple[int, float] | None = None
        """(thread, deadline) of the part that runs now, unless it has been broken off already."""
        self._waiting = 0
        self._look_timer: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Raises whatever the work raises."""
        loop = asyncio.get_running_loop()
        self._waiting += 1
        if self._look_timer is None:
            self._look_timer = loop.call_later(LOOK_S, self._look, loop)
        try:
            return await loop.run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def within(self, most_s: float, part: Callable[[], T]) -> T:
        """For work to call, in the thread. Raises TimeoutError, and whatever the part raises."""
        try:
            try:
                with self._lock:
                    self._timed = (threading.get_ident(), self._clock() + most_s)
                return part()
            finally:
                with self._lock:  # nothing is thrown from here on, and what was thrown arrives by the end of this
                    self._timed = None
        except _OverdueError:
            raise TimeoutError from None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._timed is not None and self._clock() > self._timed[1]:
                thread, self._timed = ctypes.c_ulong(self._timed[0]), None
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_OverdueError))
            goes_on = self._waiting or self._timed is not None
        self._look_timer = loop.call_later(LOOK_S, self._look, loop) if goes_on else None


class _OverdueError(BaseException):
    """No `except Exception` in a part may keep it."""
