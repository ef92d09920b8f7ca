"""Ray Serve's side of `bench-gateway`: a Ray of its own, Serve with its default HTTP proxy, and an app that forwards.

The app is what users of Serve write to put a model server behind it: one replica, aiohttp to the backend, and a
streamed answer where one was asked for. Serves until SIGTERM, and ends all of its Ray with itself.
"""

import argparse
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

OBJECT_STORE_BYTES = 80_000_000


class Forward:
    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._session = aiohttp.ClientSession()

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        headers = {"content-type": "application/json"}
        answer = await self._session.post(self._backend + request.url.path, data=body, headers=headers)
        if answer.content_type == "text/event-stream":
            return StreamingResponse(pieces(answer), media_type="text/event-stream")
        async with answer:
            return Response(await answer.read(), answer.status, media_type=answer.content_type)


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--temp-dir", type=Path, required=True)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        _temp_dir=str(given.temp_dir),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    options: dict[str, Any] = {"num_replicas": 1, "max_ongoing_requests": 1000}
    serve.run(serve.deployment(**options)(Forward).bind(given.backend))
    signal.pause()


if __name__ == "__main__":
    main()
