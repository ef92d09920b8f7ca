"""Ctrl-C and SIGTERM: the first asks a run to end with what it has, a second one later ends at once.

What comes with the first (a key pressed twice, a terminal and a shell that both say so) is the same wish. A terminal
that is closed (SIGHUP) asks for it too, perhaps several times. Under nohup nothing does.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cotenant_loadtests.terminal import note

ONE_WISH_S = 0.25


@contextmanager
def stopping(folder: Path, now_s: Callable[[], float] = time.monotonic) -> Iterator[threading.Event]:
    """An event that the first signal sets. A second raises KeyboardInterrupt. Main thread only.

    `folder` goes when what is raised in the block leaves it empty.
    """
    stop = threading.Event()
    asked_s, hung_up = 0.0, False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_s, hung_up
        hung_up = hung_up or number == signal.SIGHUP
        if not stop.is_set():
            asked_s = now_s()
            stop.set()
        elif number != signal.SIGHUP and now_s() - asked_s > ONE_WISH_S:
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield stop
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            note("ended at once, as was asked twice: what was measured and not written yet is lost")
        with suppress(OSError):
            folder.rmdir()
        raise
    finally:
        for number, handler in before.items():
            # What follows (a summary, keys that are revoked) must not be cut off by a shell that says it again.
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP and hung_up else handler)
