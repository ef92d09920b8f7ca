"""Run a command that ends when its parent does: `python -IS tether.py PARENT_PID COMMAND...`.

Asks Linux to send SIGTERM when the parent dies, however it dies, then becomes the command. Without this a
kill -9 of `cotenant up` would leave Ray running until the next `up` cleans it away.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
