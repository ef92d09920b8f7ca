"""Copies an engine's log to its container's output, each line as `[app] line`.

A process of its own, `log_follower.py FILE OFFSET APP OUTPUT`, so that the last words of an engine that is killed or
aborts arrive too; it ends with the engine. Run as a file, with nothing but the standard library, so that it is small.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

CONTAINER_OUTPUT = "/proc/1/fd/1"
"""What the container's first process writes to is what `kubectl logs` shows."""
PERIOD_S = 0.25


def follow_in_child(log: Path, app: str, output: str = CONTAINER_OUTPUT) -> "subprocess.Popen[bytes]":
    """Starts the child; what the log has by now is left out. The child's own errors go to our stderr."""
    command = [sys.executable, "-I", "-S", __file__, str(log), str(log.stat().st_size), app, output]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def copy(source: BinaryIO, output: int, prefix: bytes, rest: bytes) -> tuple[bool, bytes]:
    """Copies the whole lines that there are. Returns whether there was anything, and the line begun last."""
    data = source.read()
    *lines, rest = (rest + data).split(b"\n")
    for line in lines:
        os.write(output, prefix + line + b"\n")
    return bool(data), rest


def follow(log: str, offset: int, app: str, output_path: str) -> None:
    parent = os.getppid()
    prefix, rest = f"[{app}] ".encode(), b""
    output = os.open(output_path, os.O_WRONLY | os.O_APPEND)
    with open(log, "rb") as source:
        source.seek(offset)
        while True:
            alone = os.getppid() != parent  # asked first: what was written before its end is still read
            more, rest = copy(source, output, prefix, rest)
            if alone and not more:
                break
            time.sleep(0 if alone else PERIOD_S)
    if rest:
        os.write(output, prefix + rest + b"\n")


if __name__ == "__main__":
    try:
        follow(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
    except OSError as error:
        sys.exit(f"this log does not go to the container's output: {error}")
