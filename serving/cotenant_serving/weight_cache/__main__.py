"""`python -m cotenant_serving.weight_cache`: keeps models on this node's volume, and tells others what is there."""

import argparse
import asyncio
import dataclasses
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from cotenant_cache.cache import Cache
from cotenant_cache.errors import CacheError
from cotenant_cache.pace import Pace
from cotenant_cache.source import HubAccess
from cotenant_cache.supply import HubSupply
from cotenant_serving.inner_api import App, InnerApi, server_of
from cotenant_serving.logs import log_to_stderr
from cotenant_serving.tokens import TokenFile, shown
from cotenant_serving.weight_cache.api import CacheApi
from cotenant_serving.weight_cache.metrics import CacheMetrics
from cotenant_serving.weight_cache.node import CacheNode
from cotenant_serving.weight_cache.opening import Closed, Front, opened
from cotenant_serving.weight_cache.peers import Addresses, PeerSupply
from cotenant_serving.weight_cache.preload import Preload
from cotenant_serving.weight_cache.verification import Verification

log = logging.getLogger("cotenant.cache")

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SUFFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_QUANTITY = re.compile(r"(\d{1,15})([kMGT]|[KMGT]i)?")


def quantity(text: str) -> int:
    """`500Gi` → bytes. Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no quantity of bytes; write one such as 500Gi or 20M")
    return int(found[1]) * _SUFFIXES[found[2] or ""]


def read_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cotenant cache serve", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the volume's folder")
    parser.add_argument("--budget", type=quantity, help="bytes that it may use, such as 500Gi; default: the disk")
    parser.add_argument("--socket", type=Path, help="Unix socket for the engines of this pod")
    parser.add_argument("--listen", default="", help="host:port for the conductor, the operator and other nodes")
    parser.add_argument("--token-file", type=Path, help="the pool's token: --listen asks for it, peers are shown it")
    parser.add_argument("--preload", type=Path, help="preload list (JSON), looked at again and again")
    parser.add_argument("--at-once", type=int, default=2, help="models of the preload list that come together")
    parser.add_argument("--peers-file", type=Path, help="a line host:port for each other node")
    parser.add_argument("--peers-dns", default="", help="name:port, of which all addresses are other nodes")
    parser.add_argument("--hub-endpoint", default="", help="default: HF_ENDPOINT, or https://huggingface.co")
    parser.add_argument("--hub-token-file", type=Path, help="default: HF_TOKEN, or the file of the `hf` tool")
    parser.add_argument("--rate", type=quantity, default=0, help="bytes a second that all fetches take; 0: no limit")
    parser.add_argument("--verify-rate", type=quantity, default=20 * 2**20, help="bytes a second; 0: never again")
    parser.add_argument("--node", default="", help="name in reports; default: the host's")
    args = parser.parse_args(words)
    if not args.socket and not args.listen:
        parser.error("--socket and --listen are both missing: nobody could ask")
    if args.listen and not args.token_file:
        parser.error("--listen needs --token-file: what is asked over the network needs the pool's token")
    if args.listen and not _host_port(args.listen)[1]:
        parser.error(f"--listen {args.listen!r} is no host:port, such as 0.0.0.0:8790")
    return args


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


async def serve(args: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT. Raises OSError."""
    token = TokenFile(args.token_file) if args.token_file else None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fronts = Fronts(args, token)
    await _until_one_ends(_work(args, token, fronts), fronts.serve(), stop.wait())
    return 0 if stop.is_set() else 1


async def _until_one_ends(*jobs: Coroutine[Any, Any, Any]) -> None:
    """Raises what it raised; the others are cancelled."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _work(args: argparse.Namespace, token: TokenFile | None, fronts: "Fronts") -> None:
    """Opens the volume, as soon as it can be; then until cancelled."""
    pace = Pace(args.rate, asyncio.get_running_loop().time)
    supply = _supply(args, token, pace)
    with await opened(lambda: _cache(args, supply), fronts.closed) as cache:
        node = CacheNode(cache, args.node or socket.gethostname())
        verification = Verification(cache, args.verify_rate)
        preload = Preload(node, args.preload, at_once=args.at_once) if args.preload else None
        if preload is not None:
            await preload.note()
        fronts.open(node, CacheMetrics(node, verification, lambda: supply.fetched_bytes))
        log.info("weight cache of %s on %s", node.name, args.root)
        try:
            await _until_one_ends(verification.run(), *([preload.run()] if preload is not None else []))
        finally:
            await node.close()


def _supply(args: argparse.Namespace, token: TokenFile | None, pace: "Pace") -> PeerSupply:
    addresses = Addresses(args.peers_file, args.peers_dns)
    return PeerSupply(addresses, lambda: shown(token()) if token else "", HubSupply(pace=pace), pace=pace)


def _cache(args: argparse.Namespace, supply: PeerSupply) -> Cache:
    access = HubAccess(args.hub_endpoint, token_file=str(args.hub_token_file or ""))
    cache = Cache(args.root, args.budget, access=access, supply=supply)
    if any(dataclasses.astuple(cache.repaired)):
        log.info("repaired after an earlier instance: %s", cache.repaired)
    return cache


class Fronts:
    """The listeners: none until it is known whether there is a volume, which may take minutes after a crash."""

    def __init__(self, args: argparse.Namespace, token: TokenFile | None) -> None:
        self._args, self._tokens = args, {"socket": None, "network": token}
        self._fronts: dict[str, Front] = {}
        self._known = asyncio.Event()

    def closed(self, error: CacheError) -> None:
        self._put(lambda token: Closed(error, token))

    def open(self, node: CacheNode, metrics: CacheMetrics) -> None:
        self._put(lambda token: CacheApi(node, metrics.text, token))

    def _put(self, made: Callable[[TokenFile | None], InnerApi]) -> None:
        for name, token in self._tokens.items():
            api = made(token)
            self._fronts.setdefault(name, Front(api)).api = api
        self._known.set()

    async def serve(self) -> None:
        """Until cancelled. Raises OSError for an address that is taken."""
        await self._known.wait()
        jobs: list[Coroutine[Any, Any, None]] = []
        if self._args.socket:
            jobs.append(_serve_socket(self._fronts["socket"], self._args.socket))
        if self._args.listen:
            server = server_of(self._fronts["network"], *_host_port(self._args.listen), graceful_s=1)
            jobs.append(server.serve())
        await _until_one_ends(*jobs)


async def _serve_socket(api: App, path: Path) -> None:
    """A socket that another instance left is taken over: the lock on the volume tells the living, not this file."""
    with _listening(path) as listener:
        await server_of(api, "", 0, graceful_s=1).serve(sockets=[listener])


def _listening(path: Path) -> socket.socket:
    """For the user and the group of this process only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise OSError(f"no socket can be made at {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def main() -> None:
    args = read_arguments()
    log_to_stderr()
    asyncio.run(_serve_and_exit(args))


async def _serve_and_exit(args: argparse.Namespace) -> None:
    """From inside the loop: its end would wait for threads that open, fetch or verify. What they wrote is kept."""
    try:
        code = await serve(args)
    except (CacheError, OSError, UnicodeDecodeError) as error:
        said = error.message if isinstance(error, CacheError) else f"{type(error).__name__}: {error}"
        log.error("ending: %s", said)
        code = 1
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
