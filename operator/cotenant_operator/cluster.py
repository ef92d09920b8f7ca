"""The only Kubernetes I/O: the official client's configuration, credentials and connections, with plain JSON.

Generated models are not used: an object is the dict that the API server sent. Every call raises ClusterError.
"""

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from yarl import URL

from cotenant_operator.cluster_errors import ClusterError, GoneError, SilentError, UnreachableError, error_of
from cotenant_operator.cluster_names import FIELD_MANAGER
from cotenant_operator.failure import Failure
from cotenant_operator.kinds import Kind, Object

PAGE = 500
_GONE = 410
CALL_S = 10.0
OPEN_S = 20.0
LIST_S = 60.0
WATCH_S = (240.0, 360.0)
"""How long the API server is asked to keep a watch open: spread, so that they do not all end at once."""
CONTENT = {
    "apply": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "json": "application/json",
}
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Instead of whole objects, which may be large."""
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class NoClusterError(Failure):
    """There is no kubeconfig and this is no pod, or what there is cannot be used."""


@dataclass(frozen=True, slots=True)
class Listing:
    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    type: EventType
    object: Object


class Cluster:
    """One API server. Use as an async context manager, or call `close`."""

    def __init__(self, client: ApiClient, version: str) -> None:
        self._configuration = client.configuration
        self._client = client
        self._host = str(client.configuration.host).rstrip("/")
        self._session: aiohttp.ClientSession = client.rest_client._create_pool_manager()
        client.rest_client.pool_manager = self._session
        self._agent = f"cotenant-operator/{version}"
        self._options = _request_options(client.configuration)
        self.calls: dict[tuple[str, int], int] = {}
        """(verb, HTTP status or 0) → how many, for metrics."""
        self.open_s = OPEN_S
        """What a watch may take until it begins to answer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Raises NotFoundError."""
        return _object(await self._call("GET", kind.path(namespace, name)))

    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        """All of them, page by page. Raises NotFoundError when there is no such kind."""
        query = _query(labelSelector=labels, limit=str(PAGE))
        accept = METADATA if metadata_only else "application/json"
        items: list[Object] = []
        while True:
            page = _object(await self._call("GET", kind.path(namespace), query=query, accept=accept, limit_s=LIST_S))
            items += page.get("items") or []
            if not page["metadata"].get("continue"):
                return Listing(items, page["metadata"]["resourceVersion"])
            query["continue"] = page["metadata"]["continue"]

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: str, labels: str = "", silence_s: float
    ) -> AsyncIterator[Event]:
        """Changes after `since`, until the server ends it. Raises GoneError, SilentError."""
        query = _query(
            watch="1",
            allowWatchBookmarks="true",
            resourceVersion=since,
            timeoutSeconds=str(int(random.uniform(*WATCH_S))),  # noqa: S311 - spreads load
            labelSelector=labels,
        )
        what = kind.path(namespace)
        async with self._open(what, query=query, silence_s=silence_s) as response:
            async for line in _lines(response, silence_s, what):
                yield _event(line, what)

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        """Raises ConflictError when it exists."""
        body = orjson.dumps(item)
        query = {"fieldManager": FIELD_MANAGER}
        return _object(await self._call("POST", kind.path(namespace), body=body, query=query))

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "", limit_s: float = CALL_S) -> bytes:
        """Server-side apply: the fields of `item` become ours, all others stay. Returns the answer's JSON, unread."""
        metadata = item["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, body=orjson.dumps(item), query=query, content="apply", limit_s=limit_s)

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object:
        """Merge patch. `patch.metadata.resourceVersion`, where given, makes it conditional (ConflictError)."""
        path = kind.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        return _object(await self._call("PATCH", path, body=orjson.dumps(patch), query=query, content="merge"))

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = CALL_S) -> Object:
        """PUT, conditional on its resourceVersion. Raises ConflictError."""
        metadata = item["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        return _object(await self._call("PUT", path, body=orjson.dumps(item), query=query, limit_s=limit_s))

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None:
        """With `uid`, this very object and no later one of its name. Dependents go by their owner references.

        `grace_s`: seconds that a pod may take, also one that is ending; None: as many as it says itself.
        """
        options: Object = {"propagationPolicy": "Background"} | ({"preconditions": {"uid": uid}} if uid else {})
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        await self._call("DELETE", kind.path(namespace, name), body=orjson.dumps(options))

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "json",
        accept: str = "application/json",
        limit_s: float = CALL_S,
    ) -> bytes:
        status = 0
        what = f"{verb} {path}"
        try:
            async with self._session.request(
                verb,
                self._url(path, query),
                data=body,
                headers=await self._headers(CONTENT[content] if body is not None else "", accept),
                timeout=_limit(limit_s),
                **self._options,
            ) as response:
                said = await response.read()
                status = response.status
                if status >= 300:
                    raise error_of(what, status, said, response.headers.get("Retry-After", ""))
                return said
        except (TimeoutError, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise UnreachableError(f"{what}: no answer: {_cause(error, limit_s)}") from None
        finally:
            self.calls[verb, status] = self.calls.get((verb, status), 0) + 1

    @asynccontextmanager
    async def _open(
        self, path: str, *, query: Mapping[str, str], silence_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response whose body is read bit by bit, for as long as it comes."""
        what = f"GET {path}"
        try:
            # The server says at once that it will watch. One that stood still must not be waited for as if it had.
            async with asyncio.timeout(self.open_s):
                response = await self._session.get(
                    self._url(path, query),
                    headers=await self._headers(""),
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=silence_s),
                    **self._options,
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise UnreachableError(f"{what}: no answer: {_cause(error, min(self.open_s, silence_s))}") from None
        async with response:
            if response.status >= 300:
                retry_after = response.headers.get("Retry-After", "")
                raise error_of(what, response.status, await _whole(response, what, silence_s), retry_after)
            yield response

    async def _headers(self, content_type: str, accept: str = "application/json") -> dict[str, str]:
        """The token of a pod is renewed in its file; the client's own hook reads it again."""
        headers = {"User-Agent": self._agent, "Accept": accept}
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        if content_type:
            headers["Content-Type"] = content_type
        return headers

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        return URL(f"{self._host}{path}?{urlencode(query)}" if query else f"{self._host}{path}", encoded=True)


async def connect(version: str, *, kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """By the kubeconfig given, $KUBECONFIG, the pod's own account, or ~/.kube/config. Raises NoClusterError."""
    configuration = Configuration()
    configuration.retries = None
    configuration.connection_pool_maxsize = 512
    # aiohttp would read .netrc and the proxies' variables in a thread, twice for each request.
    configuration.client_session_kwargs = {"trust_env": False}
    named = kubeconfig or context or os.environ.get("KUBECONFIG")
    try:
        if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
            kubernetes_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(kubeconfig or os.environ.get("KUBECONFIG") or f"{os.environ.get('HOME', '')}/.kube/config")
            await kubernetes_config.load_kube_config(path, context, configuration)  # type: ignore[no-untyped-call]
        return Cluster(ApiClient(configuration), version)
    except (kubernetes_config.ConfigException, OSError, ssl.SSLError, ValueError) as error:
        raise NoClusterError(
            f"no cluster: {error}. Name a kubeconfig with --kubeconfig FILE or $KUBECONFIG."
        ) from None


def _request_options(configuration: Configuration) -> dict[str, Any]:
    """What each request gets besides what the session has. The environment's proxy is looked up here, once."""
    proxy, name = configuration.proxy, configuration.tls_server_name
    if not proxy and not proxy_bypass(URL(configuration.host).host or ""):
        proxy = getproxies().get(URL(configuration.host).scheme)
    return ({"server_hostname": name} if name else {}) | ({"proxy": proxy} if proxy else {})


@lru_cache(maxsize=64)
def _limit(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def _query(**given: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def _object(data: bytes) -> Object:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise UnreachableError("the API server's answer is not JSON; is a proxy between?") from None
    assert isinstance(value, dict)
    return value


async def _whole(response: aiohttp.ClientResponse, what: str, silence_s: float) -> bytes:
    try:
        return await response.read()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise UnreachableError(f"{what}: no answer: {_cause(error, silence_s)}") from None


async def _lines(response: aiohttp.ClientResponse, silence_s: float, what: str) -> AsyncIterator[bytes]:
    """Whole lines; the last one may lack its end. A line may be larger than any buffer."""
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
    except TimeoutError as error:
        raise SilentError(f"watch {what}: ended: {_cause(error, silence_s)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise UnreachableError(f"watch {what}: ended: {_cause(error, silence_s)}") from None
    if rest:
        yield rest


def _event(line: bytes, what: str) -> Event:
    said = _object(line)
    if said["type"] != "ERROR":
        return Event(said["type"], said["object"])
    status: Mapping[str, Any] = said["object"]
    code = int(status.get("code") or 500)
    if code == _GONE:
        raise GoneError(f"watch {what}: {status.get('message', '')}", status=code)
    raise ClusterError(f"watch {what}: {code} {status.get('message', '')}", status=code)


def _cause(error: Exception, limit_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing for {limit_s:g} s"
    return str(error) or type(error).__name__
