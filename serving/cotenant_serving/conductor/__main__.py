"""`python -m cotenant_serving.conductor`: the conductor as an ordinary process beside the Ray head."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cotenant_serving.conductor.api import Api
from cotenant_serving.conductor.caches import Caches
from cotenant_serving.conductor.conductor import Conductor, Settings
from cotenant_serving.conductor.store import Store
from cotenant_serving.conductor.world import POD_TIMEOUT_S
from cotenant_serving.contract import REQUEST_TIMEOUT_S
from cotenant_serving.inner_api import server_of
from cotenant_serving.logs import log_to_stderr
from cotenant_serving.tokens import TokenFile, shown

log = logging.getLogger("cotenant.conductor")

T = TypeVar("T")

EXIT_RAY_LOST = 3
HEAD_S = 300.0
"""How long Ray's head may take to start beside us: its image may still be pulled."""
CONNECT_RETRY_S = 0.5


def main() -> int:
    args = read_arguments()
    log_to_stderr()
    try:
        import uvloop

        return int(uvloop.run(_run(args)))
    except KeyboardInterrupt:
        return 0


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line, unless `words` are given."""
    parser = argparse.ArgumentParser(prog="cotenant-conductor", description=__doc__)
    parser.add_argument("--ray-address", required=True, help="host:port of the Ray head's GCS")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8700)
    parser.add_argument("--advertise", help="base URL at which engines reach this conductor")
    parser.add_argument("--state", type=Path, required=True, help="folder for the desired state and placements")
    parser.add_argument("--pool-token-file", type=Path, required=True)
    parser.add_argument("--control-token-file", type=Path, required=True)
    parser.add_argument("--cache-dir", default="", help="weight cache of the engines")
    parser.add_argument(
        "--cache-port",
        type=int,
        default=os.environ.get("COTENANT_CACHE_PORT") or "0",
        help="where nodes' weight caches say which models they have; default: COTENANT_CACHE_PORT, or 0: none does",
    )
    parser.add_argument("--log-dir", default="", help="folder for the engines' own logs")
    parser.add_argument("--engine-host", default="", help="address that engines listen on; default: their node's")
    parser.add_argument(
        "--engine-logs-to-container", action="store_true", help="engines' logs also go to their container's output"
    )
    parser.add_argument(
        "--pod-timeout-s",
        type=float,
        default=POD_TIMEOUT_S,
        help="a worker group whose pod is pending for so long counts as unavailable; default: %(default)s",
    )
    parser.add_argument(
        "--request-timeout-s",
        type=float,
        default=REQUEST_TIMEOUT_S,
        help="the longest request of gateways, which engines that end let finish; default: %(default)s",
    )
    return parser.parse_args(words)


async def _run(args: argparse.Namespace) -> int:
    settings = Settings(
        url=args.advertise or f"http://{args.host}:{args.port}",
        pool_token_file=str(args.pool_token_file),
        cache_dir=args.cache_dir,
        log_dir=args.log_dir,
        engine_host=args.engine_host,
        log_to_container=args.engine_logs_to_container,
        request_timeout_s=args.request_timeout_s,
        pod_timeout_s=args.pod_timeout_s,
    )
    pool_token = _token(args.pool_token_file)
    caches = Caches(args.cache_port, pool_token)
    conductor = Conductor(Store(args.state), settings, caches=caches.known)
    api = Api(conductor, pool_token=pool_token, control_token=_token(args.control_token_file))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = asyncio.create_task(server_of(api, args.host, args.port).serve())
    loop = asyncio.create_task(_conduct(conductor, args.ray_address))
    asking = asyncio.create_task(caches.run(lambda: conductor.nodes)) if args.cache_port else None
    stopped = asyncio.create_task(stop.wait())
    tasks: set[asyncio.Task[Any]] = {server, loop, stopped}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in (*(tasks - done), *filter(None, (asking,))):
        task.cancel()
    if stopped in done:
        return 0
    for task in done:
        if error := task.exception():
            log.error("ending: %s: %s", type(error).__name__, error)
    return EXIT_RAY_LOST


async def _conduct(conductor: Conductor, ray_address: str) -> None:
    from cotenant_serving.conductor.serve_driver import ServeDriver

    await _reachable(ray_address)
    driver = await asyncio.to_thread(_connected, ServeDriver, ray_address)
    log.info("connected to Ray at %s", ray_address)
    await conductor.run(driver)


async def _reachable(address: str) -> None:
    """Wait for the head's GCS: Ray's own client gives up early, and the head may still be starting."""
    host, _, port = address.rpartition(":")
    for _ in range(int(HEAD_S * 10)):
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise TimeoutError(f"Ray's head at {address} did not answer within {HEAD_S:.0f} s")


def _connected(connect: Callable[[str], T], address: str) -> T:
    """The head's GCS answers before its raylet does, without which no driver can be."""
    deadline_s = time.monotonic() + HEAD_S
    while True:
        try:
            return connect(address)
        except Exception as error:
            if time.monotonic() >= deadline_s:
                raise
            log.info("Ray at %s takes no driver yet, trying on: %s: %s", address, type(error).__name__, error)
            time.sleep(CONNECT_RETRY_S)


def _token(path: Path) -> TokenFile:
    file = TokenFile(path)
    if len(shown(file())) < 16:
        raise SystemExit(f"{path}: the token is shorter than 16 characters; write a random one")
    return file


if __name__ == "__main__":
    # Ray's driver threads may hang at exit when the head is gone; everything worth keeping is on disk.
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
