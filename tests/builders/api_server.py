"""A Kubernetes API server of a few lines for tests of the command line: objects by path, list, get, logs, rights."""

import json
import re
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from cotenant_operator.kinds import BY_KIND, CORE_EVENTS, MODELS, Kind

Object = dict[str, Any]
TOKEN = "a-token-that-nobody-prints"
DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
CRDS = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
KINDS = {**BY_KIND, "Deployment": DEPLOYMENTS, "CustomResourceDefinition": CRDS, "Event": CORE_EVENTS}


class ApiServer:
    """Use as a context manager. `asked` has what came; `forbid` takes rights away, `logs` has what pods wrote."""

    def __init__(self, *objects: Object, installed: bool = True, page: int = 500, guarded: bool = True) -> None:
        """`guarded`: it wants the token, which Go's clients do not show without TLS."""
        self.objects: dict[str, Object] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """(verb, path, query)"""
        self.forbidden: list[str] = []
        self.logs: dict[tuple[str, str, str], str] = {}
        """(namespace, pod, container) → its log; `container` may end in ` previous`."""
        self.installed, self.page, self.guarded = installed, page, guarded
        self.add(*objects)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, *objects: Object) -> None:
        for item in objects:
            self.objects[_path(item)] = item

    def forbid(self, *paths: str) -> None:
        """Answer 403 to every path that begins so, or to `VERB /path`."""
        self.forbidden += paths

    def kubeconfig(self, folder: Path, *, context: str = "here", namespace: str = "team-a") -> Path:
        path = folder / "kubeconfig"
        contexts = [
            {"name": name, "context": {"cluster": "it", "user": "me", "namespace": namespace}}
            for name in (context, "another")
        ]
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "it", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
            "contexts": contexts,
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def __enter__(self) -> "ApiServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, verb: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if any(path.startswith(start) or f"{verb} {path}".startswith(start) for start in self.forbidden):
            return _status(403, f"{path} is forbidden")
        if path == "/version":
            return 200, {"gitVersion": "v1.34.4"}
        if path == f"/apis/{MODELS.api_version}":
            return (
                (200, {"kind": "APIResourceList"}) if self.installed else _status(404, "the server could not find it")
            )
        if verb == "POST":
            return self._create(path, body)
        if path in self.objects:
            return self._one(verb, path, body)
        if path.endswith("/log"):
            return self._log(path, query)
        return self._list(path, query) if verb == "GET" else _status(404, f"{path} not found")

    def _create(self, path: str, body: Object) -> tuple[int, Any]:
        namespace = path.split("/")[-2]
        item = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
        if _path(item) in self.objects:
            return _status(409, f"{item['metadata']['name']} already exists")
        self.add(item)
        return 201, item

    def _one(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        if verb == "DELETE":
            return 200, self.objects.pop(path)
        if verb == "PATCH":
            for step in body:
                error = _patch(self.objects[path], step)
                if error:
                    return _status(422, error)
        return 200, self.objects[path]

    def _log(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        _, _, _, _, namespace, _, pod, _ = path.split("/")
        name = query.get("container", "") + (" previous" if query.get("previous") == "true" else "")
        text = self.logs.get((namespace, pod, name))
        if text is None:
            return _status(400, f"previous terminated container {name!r} in pod {pod!r} not found")
        if "tailLines" in query:
            text = "".join(text.splitlines(keepends=True)[-int(query["tailLines"]) :])
        return 200, text

    def _list(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        kind = next(
            (
                kind
                for kind in KINDS.values()
                if path.startswith(kind.path()[: -len(kind.plural)]) and path.rpartition("/")[2] == kind.plural
            ),
            None,
        )
        if kind is None or (kind.api_version == MODELS.api_version and not self.installed):
            return _status(404, "the server could not find the requested resource")
        namespace = path.split("/namespaces/")[1].split("/", maxsplit=1)[0] if "/namespaces/" in path else ""
        found = [item for item in self.objects.values() if _is(item, kind, namespace, query.get("labelSelector", ""))]
        begin = int(query.get("continue", "0"))
        end = begin + min(self.page, int(query.get("limit", str(self.page))))
        more = {"continue": str(end)} if end < len(found) else {}
        return 200, {
            "kind": f"{kind.kind}List",
            "metadata": {"resourceVersion": "1", **more},
            "items": found[begin:end],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _respond(self) -> None:
                split = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(split.query).items()}
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"null")
                server.asked.append((self.command, split.path, query))
                if server.guarded and self.headers.get("authorization") != f"Bearer {TOKEN}":
                    status, answer = _status(401, "Unauthorized")
                else:
                    status, answer = server.answer(self.command, split.path, query, body)
                data = (
                    answer.encode() if isinstance(answer, str) else json.dumps(_shown(answer, self.headers)).encode()
                )
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _respond

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _shown(answer: Any, headers: Any) -> Any:
    """As the API server does it: only metadata where nothing else was asked for."""
    if "PartialObjectMetadata" in headers.get("accept", "") and "metadata" in answer and "code" not in answer:
        return {"kind": "PartialObjectMetadata", "metadata": answer["metadata"]}
    return answer


def _path(item: Object) -> str:
    metadata = item["metadata"]
    return KINDS[item["kind"]].path(metadata.get("namespace", ""), metadata["name"])


def _is(item: Object, kind: Kind, namespace: str, labels: str) -> bool:
    metadata = item["metadata"]
    parts = (part for part in re.split(r",(?![^(]*\))", labels) if part)
    wanted = (re.fullmatch(r"(\S+?)(?:=| in \()([^)]*)\)?", part) for part in parts)
    has: Iterable[Any] = (
        metadata.get("labels", {}).get(found[1]) in found[2].split(", ") for found in wanted if found
    )
    return KINDS[item["kind"]] == kind and (not namespace or metadata.get("namespace") == namespace) and all(has)


def _patch(item: Object, step: dict[str, Any]) -> str:
    """One step of a JSON patch; what is wrong with it, or nothing."""
    *path, last = step["path"].strip("/").split("/")
    value: Any = item
    for name in path:
        value = value[int(name)] if isinstance(value, list) else value.setdefault(name, {})
    if step["op"] == "test":
        have = value[int(last)] if isinstance(value, list) else value.get(last)
        return "" if have == step["value"] else f"test failed at {step['path']}"
    if step["op"] == "remove":
        value.pop(int(last)) if isinstance(value, list) else value.pop(last)
    elif isinstance(value, list):
        value.insert(len(value) if last == "-" else int(last), step["value"])
    else:
        value[last] = step["value"]
    return ""


def _status(code: int, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
