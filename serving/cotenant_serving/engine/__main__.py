"""Runs one engine alone, without Ray: `python -m cotenant_serving.engine --args FILE.json`.

FILE holds an `EngineArgs` as JSON. SIGTERM or SIGINT drains and ends it, at once while it loads. Exit status: 0,
or 1 when it cannot load.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from cotenant_serving.contract import EngineArgs
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.process import EngineProcess, run_until


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cotenant_serving.engine", description="Run one engine alone.")
    parser.add_argument("--args", required=True, type=Path, metavar="FILE", help="EngineArgs as JSON")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on, when args name none")
    parser.add_argument(
        "--drain-s", type=float, help="seconds that requests get to finish; default: request_timeout_s of args"
    )
    given = parser.parse_args()
    try:
        args = msgspec.json.decode(given.args.read_bytes(), type=EngineArgs)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"--args {given.args}: {error}. Write an EngineArgs as JSON.", file=sys.stderr)
        return 2
    drain_s = args.request_timeout_s if given.drain_s is None else given.drain_s
    try:
        loaded = asyncio.run(_run(args, given.host, drain_s))
    except LoadError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 1
    if not loaded:
        # The thread that loads may be anywhere in torch: the interpreter must not be taken down around it.
        sys.stdout.flush()
        os._exit(0)
    return 0


async def _run(args: EngineArgs, host: str, drain_s: float) -> bool:
    """Returns whether the model was loaded when it ended. Raises LoadError."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    def announce(text: str) -> None:
        print(f"{args.app} {text}", flush=True)

    return await run_until(EngineProcess(args, host), ended, drain_s, announce)


if __name__ == "__main__":
    sys.exit(main())
