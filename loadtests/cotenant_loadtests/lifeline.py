"""A worker ends with its run, however that ends and whatever the worker does: Linux kills it when its parent dies."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """For the first line of a worker. If its parent has died before, it finds the end of stdin instead of orders."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
