"""Memory of the gateway's processes, for whoever looks for leaks over days."""

import contextlib
import os


def resident_bytes(supervisor: int) -> int:
    """RSS of this process and its children together, read from /proc: not on the event loop.

    What they share counts in each of them. A process that ends meanwhile counts as nothing.
    """
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(supervisor)
        for process in (first, *first.children()):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def own_resident_bytes() -> int:
    """Of a process that serves without a supervisor."""
    return resident_bytes(os.getpid())
