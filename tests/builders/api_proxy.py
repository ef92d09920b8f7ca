"""Stands between an operator and the API server: counts its calls, and lets it die right after any of them.

Plain HTTP on both sides: towards the cluster it is `kubectl proxy` that authenticates (kube.py).
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"})


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    status: int

    @property
    def writes(self) -> bool:
        """Leases are left out: they are renewed all the time."""
        return self.method in WRITES and "/leases" not in self.path


class ApiProxy:
    """Use as a context manager. `after(n, what)`: when the n-th call from now has taken effect, `what()` happens
    before its answer is given; leases count too."""

    def __init__(self, upstream_port: int) -> None:
        self.calls: list[Call] = []
        self.port = 0
        self._upstream = f"http://127.0.0.1:{upstream_port}"
        self._left, self._what = 0, _nothing
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ApiProxy":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def after(self, count: int, what: Callable[[], None]) -> None:
        self._left, self._what = count, what

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.writes]

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / f"kubeconfig-{self.port}.json"
        here = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
        users: list[dict[str, Any]] = [{"name": "nobody", "user": {}}]
        value = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "clusters": [here]}
        path.write_text(json.dumps({**value, "contexts": [context], "users": users}))
        return path

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.close()

    async def _serve(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, auto_decompress=False
        ) as self._session:
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", self._forward)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {*HOP, "host"}}
        body = await request.read()
        url = self._upstream + request.raw_path
        try:
            async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
                return await self._answer(request, answer)
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=str(error))

    async def _answer(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        is_watch = request.query.get("watch") in ("1", "true")
        whole = b"" if is_watch else await answer.read()
        self.calls.append(Call(request.method, request.raw_path, answer.status))
        self._left -= 1
        if self._left == 0:
            self._what()
            raise aiohttp.ClientConnectionError("it is dead by now")
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
        if not is_watch:
            coding = answer.headers.get("content-encoding")
            return web.Response(
                status=answer.status, body=whole, headers=kept | ({"content-encoding": coding} if coding else {})
            )
        stream = web.StreamResponse(status=answer.status, headers=kept)
        await stream.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for chunk in answer.content.iter_any():
                await stream.write(chunk)
        return stream


def _nothing() -> None: ...
