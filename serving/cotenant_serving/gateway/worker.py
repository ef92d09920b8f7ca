"""`python -m cotenant_serving.gateway.worker`: one process that serves. Started by the supervisor only.

It ends when the supervisor does, however that dies: Linux sends it SIGTERM then, so its requests may finish.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from cotenant_serving.gateway.options import parse_worker
from cotenant_serving.logs import log_to_stderr

PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM. Exit status 1 when it cannot start."""
    options, place = parse_worker(arguments)
    follow_to_death(place.parent)
    os.umask(0o077)
    log_to_stderr(place.worker if options.workers > 1 else None)
    # Only now: the imports of a server take most of a second, and the parent may die meanwhile.
    from cotenant_serving.gateway.server import run

    return run(options, place)


def follow_to_death(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
