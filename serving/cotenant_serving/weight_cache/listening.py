"""The listeners of a weight cache: a Unix socket for the engines of its pod, an address for everybody else."""

import argparse
import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cotenant_cache.errors import CacheError
from cotenant_serving.inner_api import App, InnerApi, server_of
from cotenant_serving.tokens import TokenFile
from cotenant_serving.weight_cache.api import CacheApi
from cotenant_serving.weight_cache.arguments import host_port, node_name
from cotenant_serving.weight_cache.metrics import CacheMetrics
from cotenant_serving.weight_cache.node import CacheNode
from cotenant_serving.weight_cache.opening import Closed, Front


class Fronts:
    """The listeners: none until it is known whether there is a volume, which may take minutes after a crash."""

    def __init__(self, args: argparse.Namespace, token: TokenFile | None) -> None:
        self._args, self._tokens = args, {"socket": None, "network": token}
        self._fronts: dict[str, Front] = {}
        self._known = asyncio.Event()

    def closed(self, error: CacheError) -> None:
        self._put(lambda token: Closed(error, token, node_name(self._args)))

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
            server = server_of(self._fronts["network"], *host_port(self._args.listen), graceful_s=1)
            jobs.append(server.serve())
        await until_one_ends(*jobs)


async def _serve_socket(api: App, path: Path) -> None:
    with _listening(path) as listener:
        await server_of(api, "", 0, graceful_s=1).serve(sockets=[listener])


def _listening(path: Path) -> socket.socket:
    """For the user and the group of this process only. What a dead instance left is taken over."""
    if _answers(path):
        raise OSError(f"another instance listens at {path}; end it, or give this one another --socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise OSError(f"no socket can be made at {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


async def until_one_ends(*jobs: Coroutine[Any, Any, Any]) -> None:
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
