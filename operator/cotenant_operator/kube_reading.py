"""The command line's only Kubernetes I/O: plain dicts of one API server, one request at a time, no watches.

Paths are those of the API (`/apis/cotenant.dev/v1alpha1/gpupools`). Errors are told in the words of the person who
asked, who need not be an administrator.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cotenant_operator.cluster_errors import ClusterError
from cotenant_operator.failure import Failure
from cotenant_operator.kube_refusals import refusal, unreachable

PAGE = 500
CONNECT_S = 5.0
READ_S = 30.0
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_FOLLOW_S = 24 * 3600.0
Query = Mapping[str, str | int | bool]


class KubeApi:
    """One cluster as one user. `namespace` is the context's own."""

    def __init__(self, client: Any, *, context: str, namespace: str) -> None:
        self._client, self.context, self.namespace = client, context, namespace

    @classmethod
    def of_kubeconfig(cls, files: Sequence[Path], context: str | None) -> "KubeApi":
        """Raises ClusterError when the files or the context cannot be used."""
        try:
            from kubernetes import config
            from kubernetes.client import Configuration
        except ImportError:
            raise ClusterError(
                "the Python package kubernetes is not installed; run: pip install 'cotenant[operator]'"
            ) from None
        where = os.pathsep.join(map(str, files))
        for file in files:
            if not os.access(file, os.R_OK):
                raise ClusterError(
                    f"kubeconfig {file} cannot be read; check the path, or give another with --kubeconfig"
                )
        try:
            contexts, current = config.list_kube_config_contexts(where)  # type: ignore[no-untyped-call]
            chosen = current if context is None else _context_named(context, contexts, where)
            configuration = Configuration()
            configuration.retries = False
            client = config.new_client_from_config(  # type: ignore[no-untyped-call]
                where, context=chosen["name"], persist_config=False, client_configuration=configuration
            )
        except Failure:
            raise
        except Exception as error:  # whatever the file or its exec plugin makes of it
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise ClusterError(f"kubeconfig {where} cannot be used: {said}") from None
        namespace = chosen.get("context", {}).get("namespace") or "default"
        return cls(client, context=str(chosen["name"]), namespace=namespace)

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """Raises ClusterError."""
        with self._answer("GET", path, query) as response:
            return _object(response.read())

    def metadata(self, path: str) -> dict[str, Any]:
        """Only name, labels and the like of one object: of a Secret not what is in it. Raises ClusterError."""
        with self._answer("GET", path, None, accept=_METADATA) as response:
            return _object(response.read())

    def list(self, path: str, query: Query | None = None) -> list[dict[str, Any]]:
        """All items, page by page. Raises ClusterError."""
        items: list[dict[str, Any]] = []
        more: dict[str, str | int | bool] = {"limit": PAGE, **(query or {})}
        while True:
            answer = self.get(path, more)
            items += answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return items
            more["continue"] = token

    def write(self, method: str, path: str, body: object, content_type: str = "application/json") -> dict[str, Any]:
        """POST, PATCH or DELETE. Raises ClusterError."""
        with self._answer(method, path, None, body=body, content_type=content_type) as response:
            return _object(response.read())

    @property
    def server(self) -> str:
        """Its URL."""
        return str(self._client.configuration.host)

    @contextlib.contextmanager
    def lines(self, path: str, query: Query | None = None, *, follow: bool = False) -> Iterator[Iterator[bytes]]:
        """Lines of a log as they come, each with its line break. Raises ClusterError."""
        with self._answer("GET", path, query, read_s=_FOLLOW_S if follow else READ_S) as response:
            yield _lines(response.stream(1 << 16))

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        read_s: float = READ_S,
    ) -> Iterator[Any]:
        import urllib3

        request = self._client.param_serialize(
            method,
            path,
            query_params=[(name, _text(value)) for name, value in (query or {}).items()],
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=(CONNECT_S, read_s))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.context, self.server, str(getattr(error, "reason", error))) from None
        try:
            if answer.status >= 400:
                raise refusal(answer.status, method, path, answer.response.read(), self.context)
            yield answer.response
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.context, self.server, str(error)) from None
        finally:
            answer.response.close()


def _context_named(name: str, contexts: Sequence[dict[str, Any]], where: str) -> dict[str, Any]:
    from cotenant_operator.near import hint

    for context in contexts:
        if context["name"] == name:
            return context
    known = [str(context["name"]) for context in contexts]
    raise ClusterError(f"there is no context {name!r} in {where}; {hint(name, known, label='known')}")


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        raise ClusterError("the server answered what is no JSON; is it a Kubernetes API server?") from None
    if not isinstance(value, dict):
        raise ClusterError("the server answered what is no object; is it a Kubernetes API server?")
    return value


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
