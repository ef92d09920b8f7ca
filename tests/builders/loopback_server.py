"""Connections to a port on loopback, each given to a coroutine, and none of them left when the server is closed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

ROUNDS_OF_THE_LOOP = 4
"""What a connection takes from being accepted to `_connected`, and after an abort to its socket's end."""


class LoopbackServer:
    """`converse` has a connection for itself, and closes it; `limit` is in bytes, as of `asyncio.start_server`."""

    def __init__(self, converse: Converse, host: str = "127.0.0.1", limit: int = 1 << 24) -> None:
        self._converse, self._host, self._limit = converse, host, limit
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> int:
        """Listens on `port`, or on a free one; returns which."""
        self._server = await asyncio.start_server(self._connected, self._host, port, limit=self._limit)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Ends every conversation and connection, also those that were only being accepted or had not begun."""
        if self._server is None:
            return
        server, self._server = self._server, None
        # First no more are accepted: asyncio leaks the socket of one whose server closes before it has a transport.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(ROUNDS_OF_THE_LOOP):
            await asyncio.sleep(0)
        server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=0.5)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        for _ in range(ROUNDS_OF_THE_LOOP):
            await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers = {one for one in self._writers if not one.is_closing()} | {writer}
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
