"""Waking an event loop at a given nanosecond: uvloop's own timers wake at whole milliseconds only.

Linux has timers that are files (timerfd): the loop waits for them as for a socket, exactly and without spinning.
"""

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Callable
from time import CLOCK_MONOTONIC, monotonic_ns
from typing import Protocol

from cotenant_loadtests.units import NS_PER_S

_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_TFD_TIMER_ABSTIME = 1


class Alarm(Protocol):
    """One alarm; setting it again replaces the time."""

    def set(self, at_ns: int) -> None:
        """Rings once, at CLOCK_MONOTONIC `at_ns` or as soon as possible after it."""

    def close(self) -> None: ...


def make_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    return _TimerFile(loop, ring) if sys.platform == "linux" else _LoopTimer(loop, ring)


class _TimerFile:
    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        libc = ctypes.CDLL(None, use_errno=True)
        self._set_time = libc.timerfd_settime
        self._set_time.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._fd = libc.timerfd_create(CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "making a timer (timerfd_create)")
        self._soon: asyncio.Handle | None = None
        loop.add_reader(self._fd, self._woken)

    def set(self, at_ns: int) -> None:
        if at_ns <= monotonic_ns():  # to set a timer for what is over costs an interrupt
            self._soon = self._soon or self._loop.call_soon(self._ring_now)
            return
        seconds, rest_ns = divmod(at_ns, NS_PER_S)
        self._set_time(self._fd, _TFD_TIMER_ABSTIME, struct.pack("qqqq", 0, 0, seconds, rest_ns), None)

    def close(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring_now(self) -> None:
        self._soon = None
        self._ring()

    def _woken(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew since the loop saw it
        self._ring()


class _LoopTimer:
    """Where there is no timerfd; late by up to a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0, at_ns - monotonic_ns()) / NS_PER_S, self._ring)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
