"""An API server whose lists and watches a test writes down, on loopback, and the objects for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from cotenant_operator.cluster import Cluster, connect
from cotenant_operator.kinds import MODELS

Object = dict[str, Any]


def deployment(name: str, version: int, *, generation: int = 1, namespace: str = "default", **more: Any) -> Object:
    """A ModelDeployment as an API server sends it, with a field that nobody keeps."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "generation": generation,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-26T22:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }
    spec = {"task": "echo", "pool": "default", "gpu": {"memory": "256Mi"}}
    return {"apiVersion": MODELS.api_version, "kind": MODELS.kind, "metadata": metadata, "spec": spec, **more}


def event(type_: str, item: Object) -> Object:
    return {"type": type_, "object": item}


def bookmark(version: int) -> Object:
    return event("BOOKMARK", {"kind": MODELS.kind, "metadata": {"resourceVersion": str(version)}})


GONE = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
HANG = "hang"
"""In a watch: say nothing more and keep the connection. As a watch: do not even begin to answer."""


class WatchedApi:
    """`lists` and `watches` are answered in turn, the last one again and again. An int is a status to fail with."""

    def __init__(self) -> None:
        self.lists: list[list[Object] | int] = [[]]
        self.list_version = 1
        self.watches: list[list[Object | str] | int | str] = [[HANG]]
        self.retry_after = ""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """(verb, path, query)"""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.watching = asyncio.Event()
        """Set whenever a watch has said all that it has to say."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append((request.method, request.path, query))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        if request.method != "GET":
            return web.json_response({"metadata": {"name": "answered"}})
        if "watch" in query:
            return await self._watch(request)
        found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(found, int):
            return self._failure(found)
        return web.json_response({"metadata": {"resourceVersion": str(self.list_version)}, "items": found})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        said = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        if isinstance(said, int):
            return self._failure(said)
        if isinstance(said, str):
            await asyncio.Event().wait()
        response = web.StreamResponse()
        await response.prepare(request)
        for item in said:
            if isinstance(item, str):
                self.watching.set()
                await asyncio.Event().wait()
            await response.write(json.dumps(item).encode() + b"\n")
        self.watching.set()
        return response

    def _failure(self, status: int) -> web.Response:
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        body = {"kind": "Status", "code": status, "reason": "Fails", "message": "as the test wants it"}
        return web.json_response(body, status=status, headers=headers)

    def kubeconfig(self, folder: Path, url: str) -> Path:
        path = folder / "kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "it", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": "a-token"}}],
            "contexts": [{"name": "here", "context": {"cluster": "it", "user": "me"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path


@asynccontextmanager
async def connected(api: WatchedApi, folder: Path) -> AsyncIterator[Cluster]:
    """A `Cluster` that talks to it over a socket."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with await connect("1.2.3", kubeconfig=api.kubeconfig(folder, f"http://127.0.0.1:{port}")) as cluster:
            yield cluster
    finally:
        await runner.cleanup()
