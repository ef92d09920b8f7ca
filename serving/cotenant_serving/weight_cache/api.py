"""The cache's HTTP API. On the pod's address with the pool's token; on its Unix socket for whoever may open that.

GET  /v1/models                          → NodeReport
POST /v1/ensure   EnsureRequest          → lines of Progress; with `lease`, then empty lines for as long as it is held
POST /v1/leases   LeaseRequest           → the same, of a model that is here; the hub is not asked
POST /v1/evict    EvictRequest           → RoomPlan; nothing changes without `yes`
GET  /v1/listing?repo=R&commit=C         → [ModelFile], of a model that is whole; for other nodes
GET  /v1/blob?repo=R&digest=D            → its bytes, or those of Range; for other nodes
GET  /metrics, /healthz                  no token
"""

import asyncio
import logging
import math
import os
import re
from collections.abc import AsyncGenerator, Callable

import msgspec

from cotenant_cache.contract import EnsureRequest, EvictRequest, LeaseRequest, Progress
from cotenant_cache.errors import CacheError, CacheFullError, ModelNotFoundError
from cotenant_cache.shelving import Leased
from cotenant_serving.inner_api import Answer, InnerApi, Scope, Stream, asked, refusal
from cotenant_serving.weight_cache.node import CacheNode, line

BEAT_S = 5.0
"""Of a lease that is held: a line so often, so that both sides notice when the other one is gone."""
READ_BYTES = 2**20
MOST_NAME = 200
log = logging.getLogger("cotenant.cache")

_RANGE = re.compile(rb"bytes=(\d{1,18})-(\d{0,18})")


class CacheApi(InnerApi):
    def __init__(self, node: CacheNode, metrics: Callable[[], bytes], token: Callable[[], str] | None) -> None:
        """`token` gives the text of a token file (see `tokens`); None for a socket that its permissions guard."""
        self._node, self._metrics = node, metrics
        pool = "" if token is None else "pool"
        routes = {
            ("GET", "/v1/models"): (pool, self._models),
            ("POST", "/v1/ensure"): (pool, self._ensure),
            ("POST", "/v1/leases"): (pool, self._lease),
            ("POST", "/v1/evict"): (pool, self._evict),
            ("GET", "/v1/listing"): (pool, self._listing),
            ("GET", "/v1/blob"): (pool, self._blob),
            ("GET", "/metrics"): ("", self._scraped),
            ("GET", "/healthz"): ("", self._health),
        }
        super().__init__(routes, {} if token is None else {"pool": token})

    async def _models(self, scope: Scope, body: bytes) -> Answer:
        try:
            return Answer(200, msgspec.json.encode(await self._node.report()))
        except CacheError as error:
            return refusal(503, f"{error.reason}: {error.message}")

    async def _ensure(self, scope: Scope, body: bytes) -> Answer | Stream:
        wanted = msgspec.json.decode(body, type=EnsureRequest)
        if problem := _bad_name("lease", wanted.lease):
            return problem
        if wanted.deadline_s < 0:
            return refusal(
                400, f"deadline_s is {wanted.deadline_s:g}; say for how many seconds to wait, or leave it out"
            )
        return Stream(200, self._until_left(wanted.source, wanted.lease, wanted.deadline_s or math.inf))

    async def _lease(self, scope: Scope, body: bytes) -> Answer | Stream:
        wanted = msgspec.json.decode(body, type=LeaseRequest)
        if problem := _bad_name("holder", wanted.holder):
            return problem
        if not wanted.holder:
            return refusal(400, "holder is empty; say who uses the model, such as the engine's name")
        try:
            leased = await self._leased(self._node.cache.lease, wanted.source, wanted.holder)
        except CacheError as error:
            return refused(error)
        return Stream(200, self._held(leased.progress(wanted.source), leased.lease_id))

    async def _until_left(self, source: str, lease: str, deadline_s: float) -> AsyncGenerator[bytes, None]:
        last, until = Progress(source=source, phase="waiting"), asyncio.get_running_loop().time() + deadline_s
        async for last in self._node.wanted(source).heard(until):
            if last.phase != "done" or not lease:
                yield line(last)
        if last.phase != "done" or not lease:
            return
        # Whole a moment ago; should it be evicted in between, the one who asks fetches it again.
        pinned = f"{source.partition('@')[0]}@{last.commit}" if last.commit else source
        leased, taking = None, self._node.taking(pinned, lease)
        try:
            async for last in taking.heard(until):
                if last.phase != "done":
                    yield line(last)
            leased = taking.task.result() if last.phase == "done" else None
        finally:  # a thread cannot be stopped: what it takes for one who has left meanwhile is given back
            if leased is None:
                taking.task.add_done_callback(self._node.give_back)
        if leased is not None:
            async for chunk in self._held(leased.progress(source), leased.lease_id):
                yield chunk

    async def _leased(self, take: Callable[[str, str], Leased], source: str, holder: str) -> Leased:
        """A thread cannot be stopped: what it takes for one who has left meanwhile is given back."""
        taking = asyncio.ensure_future(self._node.call(take, source, holder))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._node.give_back)
            raise

    async def _held(self, said: Progress, lease_id: str) -> AsyncGenerator[bytes, None]:
        try:
            yield line(said)
            while lease_id:  # a folder of its own has none
                await asyncio.sleep(BEAT_S)
                yield b"\n"
        finally:
            if lease_id:
                self._node.release(lease_id)

    async def _evict(self, scope: Scope, body: bytes) -> Answer:
        wanted = msgspec.json.decode(body, type=EvictRequest)
        if wanted.bytes < 0:
            return refusal(400, f"bytes is {wanted.bytes}; say how many bytes of room to make, or name sources")
        if not wanted.sources and not wanted.bytes:
            return refusal(400, "sources and bytes are both empty; name models, or how many bytes of room to make")
        try:
            evict = self._node.cache.evict
            plan = await self._node.call(evict, wanted.sources, wanted.bytes, yes=wanted.yes)
        except CacheError as error:
            return refused(error)
        return Answer(200, msgspec.json.encode(plan))

    async def _listing(self, scope: Scope, body: bytes) -> Answer:
        query = asked(scope)
        try:
            files = await self._node.call(self._node.cache.listing, query.get("repo", ""), query.get("commit", ""))
        except CacheError as error:
            return refused(error)
        if not files:
            return refusal(404, "this model is not whole here")
        return Answer(200, msgspec.json.encode(files))

    async def _blob(self, scope: Scope, body: bytes) -> Answer | Stream:
        query = asked(scope)
        try:
            path = await self._node.call(self._node.cache.blob, query.get("repo", ""), query.get("digest", ""))
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path is not None else -1
        except CacheError as error:
            return refused(error)
        except OSError:
            handle = -1
        if handle < 0:
            return refusal(404, "this blob is not here, or was not verified yet")
        return _file(handle, dict(scope["headers"]).get(b"range", b""))

    async def _scraped(self, scope: Scope, body: bytes) -> Answer:
        try:
            text = await self._node.call(self._metrics)
        except CacheError as error:
            log.warning("no metrics: %s", error)
            return refusal(503, error.reason)  # the message has paths, and this route asks for no token
        return Answer(200, text, b"text/plain; version=0.0.4; charset=utf-8")

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, b'{"status":"ok"}')


def refused(error: CacheError) -> Answer:
    if isinstance(error, ModelNotFoundError):
        return refusal(404, error.message)
    return refusal(409 if isinstance(error, CacheFullError) else 400, error.message)


def _bad_name(field: str, value: str) -> Answer | None:
    if len(value) <= MOST_NAME and value.isprintable():
        return None
    return refusal(400, f"{field} has {len(value)} characters; at most {MOST_NAME} printable ones name who uses it")


def _file(handle: int, wanted: bytes) -> Answer | Stream:
    """Takes the handle. One range is understood; for anything else the whole is sent, as HTTP has it."""
    size = os.fstat(handle).st_size
    found = _RANGE.fullmatch(wanted)
    first = int(found[1]) if found else 0
    last = min(size - 1, int(found[2])) if found and found[2] else size - 1
    if found and (first >= size or last < first):
        os.close(handle)
        return refusal(416, f"Range {wanted.decode('latin-1')} is outside of {size} bytes")
    headers = [(b"content-length", str(last - first + 1).encode()), (b"accept-ranges", b"bytes")]
    if found:
        headers.append((b"content-range", f"bytes {first}-{last}/{size}".encode()))
    return Stream(206 if found else 200, _sent(handle, first, last + 1), b"application/octet-stream", tuple(headers))


async def _sent(handle: int, at: int, end: int) -> AsyncGenerator[bytes, None]:
    try:
        while at < end:
            block = await asyncio.to_thread(os.pread, handle, min(READ_BYTES, end - at), at)
            if not block:
                return
            at += len(block)
            yield block
    finally:
        os.close(handle)
