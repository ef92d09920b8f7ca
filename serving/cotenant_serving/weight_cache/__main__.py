"""`python -m cotenant_serving.weight_cache`: keeps models on this node's volume, and tells others what is there."""

import argparse
import asyncio
import dataclasses
import logging
import os
import signal
import sys

from cotenant_cache.cache import Cache
from cotenant_cache.errors import CacheError
from cotenant_cache.pace import Pace
from cotenant_cache.source import HubAccess
from cotenant_cache.supply import HubSupply
from cotenant_serving.logs import log_to_stderr
from cotenant_serving.tokens import TokenFile, shown
from cotenant_serving.weight_cache.arguments import node_name, read_arguments
from cotenant_serving.weight_cache.listening import Fronts, until_one_ends
from cotenant_serving.weight_cache.metrics import CacheMetrics
from cotenant_serving.weight_cache.node import CacheNode
from cotenant_serving.weight_cache.opening import opened
from cotenant_serving.weight_cache.peers import Addresses, PeerSupply
from cotenant_serving.weight_cache.preload import Preload
from cotenant_serving.weight_cache.verification import Verification

NEEDED_KEPT = 0.11
"""Of the disk: without a budget also what is needed now leaves so much free. Below 10 % a kubelet evicts the pod by
default, its models go with it where they are in the pod, and the next pod would fetch them to the same end."""

log = logging.getLogger("cotenant.cache")


async def serve(args: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT. Raises OSError."""
    token = TokenFile(args.token_file) if args.token_file else None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fronts = Fronts(args, token)
    await until_one_ends(_work(args, token, fronts), fronts.serve(), stop.wait())
    return 0 if stop.is_set() else 1


async def _work(args: argparse.Namespace, token: TokenFile | None, fronts: Fronts) -> None:
    """Opens the volume, as soon as it can be; then until cancelled."""
    pace = Pace(args.rate, asyncio.get_running_loop().time)
    supply = _supply(args, token, pace)
    with await opened(lambda: _cache(args, supply), fronts.closed) as cache:
        node = CacheNode(cache, node_name(args))
        verification = Verification(cache, args.verify_rate)
        preload = Preload(node, args.preload, at_once=args.at_once) if args.preload else None
        if preload is not None:
            await preload.note()
        fronts.open(node, CacheMetrics(node, verification, lambda: supply.fetched_bytes))
        log.info("weight cache of %s on %s", node.name, args.root)
        try:
            await until_one_ends(verification.run(), *([preload.run()] if preload is not None else []))
        finally:
            await node.close()


def _supply(args: argparse.Namespace, token: TokenFile | None, pace: Pace) -> PeerSupply:
    addresses = Addresses(args.peers_file, args.peers_dns)
    return PeerSupply(addresses, lambda: shown(token()) if token else "", HubSupply(pace=pace), pace=pace)


def _cache(args: argparse.Namespace, supply: PeerSupply) -> Cache:
    access = HubAccess(args.hub_endpoint, token_file=str(args.hub_token_file or ""))
    cache = Cache(args.root, args.budget, access=access, supply=supply, kept_share=NEEDED_KEPT)
    if any(dataclasses.astuple(cache.repaired)):
        log.info("repaired after an earlier instance: %s", cache.repaired)
    try:
        cache.note_budget(args.budget)
    except CacheError as error:  # what is here is served all the same, within the budget that this instance was told
        log.warning("the budget cannot be noted on the volume, `cotenant cache` there may not know it: %s", error)
    return cache


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
