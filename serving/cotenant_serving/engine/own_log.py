"""What an engine leaves in its log folder, for people who know nothing of Ray.

    {log_dir}/{app}.log         its own lines, and whatever torch, CUDA or the C library write to stdout and stderr
    {log_dir}/{app}.cause.json  the last heartbeat of one that failed

Both are 0600. Several starts of one app append to the same log. With `log_to_container` its lines also go to the
container's output (`log_follower`).
"""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from cotenant_serving.contract import EngineArgs, Heartbeat
from cotenant_serving.engine.log_follower import follow_in_child

log = logging.getLogger("cotenant.engine")


class _Formatter(logging.Formatter):
    """Ray replaces `print` in its workers, which breaks how logging formats tracebacks."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "".join(traceback.format_exception(*ei)).rstrip()


def log_to_file(args: EngineArgs) -> logging.Handler | None:
    """From now on the engine's lines go to its log; without log_dir, nowhere. Returns what `log` must lose again."""
    if not args.log_dir:
        return None
    handler = logging.FileHandler(_made(args), encoding="utf-8")
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    return handler


def take_over_streams(args: EngineArgs) -> None:
    """Send stdout and stderr of this whole process to the engine's log; without log_dir, nothing.

    By file descriptor, below Python: a CUDA assertion, an abort or a fault's stack is written by C code. Ray reads
    nothing from these streams here; it has only written its worker's name to them.
    """
    if not args.log_dir:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    path = _made(args)
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    if args.log_to_container:
        follow_in_child(path, args.app)


def write_cause(log_dir: str, heartbeat: Heartbeat) -> None:
    """Leaves the last heartbeat of a failed engine as `{log_dir}/{app}.cause.json`; without log_dir, nothing."""
    if log_dir:
        path = Path(log_dir) / f"{heartbeat.app}.cause.json"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(heartbeat))
        temporary.replace(path)


def _made(args: EngineArgs) -> Path:
    """Path of the log, which exists and is private."""
    path = Path(args.log_dir) / f"{args.app}.log"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(_private(str(path), os.O_WRONLY | os.O_CREAT))
    return path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
