"""The HTTP of the fake hub: two ports, one of the hub and one of the host that it redirects to for large files."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import termios
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from tests.builders.fake_hub_content import (
    ANSWER_FAULTS,
    BODY_FAULTS,
    LISTING,
    Content,
    Fault,
    Repo,
    blob_id,
    is_lfs,
    other_bytes,
    sha256,
    size_of,
)

if TYPE_CHECKING:
    from tests.builders.fake_hub import FakeHub

_PIECE = 2**20
_CHUNK = 100_003
"""Of no round number, as ends of chunks are."""
_STATUSES = (500, 502, 503, 504)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what these tests are about."""


def serve(hub: FakeHub, host: str) -> tuple[Callable[[], None], tuple[str, str]]:
    """Starts both; what stops them, and their addresses."""
    front = _Server((host, 0), type("Front", (_Front,), {"hub": hub}))
    second = _Server((host, 0), type("Second", (_Second,), {"hub": hub}))
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in (front, second)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        for server, thread in zip((front, second), threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def url(server: _Server) -> str:
        return f"http://{host}:{server.server_address[1]}"

    return stop, (url(front), url(second))


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._note()
        self.route()

    do_HEAD = do_GET

    def route(self) -> None:
        raise NotImplementedError

    def seen(self) -> set[str]:
        """Where its Authorization headers are kept."""
        raise NotImplementedError

    def _note(self) -> None:
        with self.hub.lock:
            self.hub.log.append((self.command, self.path))
            if token := self.headers.get("authorization", ""):
                self.seen().add(token)

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, headers: Mapping[str, str] = {}, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def met_on_the_way(self, name: str) -> bool:
        """Whether a fault of the whole answer was met, which is then given."""
        fault = self.hub.meets(ANSWER_FAULTS, name) if self.command == "GET" else None
        if fault is None:
            return False
        port = self.hub.cdn_url.rpartition(":")[2]
        match fault.kind:
            case "rate_limit":
                self.say(429)
            case "rate_limit_after":
                self.say(429, {"Retry-After": f"{fault.value:g}"})
            case "burst":
                self.say(_STATUSES[fault.at % len(_STATUSES)])
            case "loop":
                self.say(302, {"Location": self.path})
            case "dns":
                self.say(302, {"Location": "http://no-such-host.invalid/file"})
            case "tls":
                self.say(302, {"Location": f"https://127.0.0.1:{port}/file"})
            case "nowhere":
                self.say(302, {"Location": "ftp://elsewhere/file"})
            case "gone":
                self.say(404, {"X-Error-Code": "RevisionNotFound"})
        return True

    def send_file(self, repo: str, name: str, content: Content, headers: Mapping[str, str]) -> None:
        """200 or 206 with the bytes that Range asks for, and whatever fault is due."""
        fault = self.hub.meets(BODY_FAULTS, name) if self.command == "GET" else None
        _Body(self, self.hub, repo, name, self.hub.content(repo, name, content), fault).send(dict(headers))


class _Front(_Handler):
    """The hub itself."""

    def seen(self) -> set[str]:
        return self.hub.tokens

    def route(self) -> None:
        if self.hub.down:
            return self.say(503, {}, b"down")
        path = urlsplit(self.path).path
        is_listing = path.startswith("/api/models/")
        repo_id, rest = self._split(path.removeprefix("/api/models") if is_listing else path)
        repo = self.hub.repos.get(repo_id)
        authorized = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if repo is None or (repo.private and not authorized):
            return self.say(401 if not authorized else 404, {"X-Error-Code": "RepoNotFound"})
        if repo.gated == "listing" or (repo.gated and not is_listing):
            return self.say(403, {"X-Error-Code": "GatedRepo"})
        return self._listing(repo_id, repo, rest) if is_listing else self._file(repo_id, repo, rest)

    def _split(self, path: str) -> tuple[str, list[str]]:
        """The repository, with or without an owner, and the parts after it."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        known = next((n for n in (2, 1) if "/".join(parts[:n]) in self.hub.repos), 2)
        return "/".join(parts[:known]), parts[known:]

    def _listing(self, repo_id: str, repo: Repo, rest: list[str]) -> None:
        if self.met_on_the_way(LISTING):
            return None
        found = repo.at("/".join(rest[1:]) or "main")
        if found is None:
            return self.say(404, {"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        tree = bool(rest) and rest[0] == "tree"
        value: Any = [_entry(name, files[name]) for name in files] if tree else _info(repo_id, repo, commit, files)
        return self.say(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _file(self, repo_id: str, repo: Repo, rest: list[str]) -> None:
        found = repo.at(rest[1]) if rest[:1] == ["resolve"] and len(rest) > 2 else None
        if found is None:
            return self.say(404, {"X-Error-Code": "RevisionNotFound"})
        (commit, files), name = found, "/".join(rest[2:])
        if name not in files:
            return self.say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        if self.met_on_the_way(name):
            return None
        content = files[name]
        if not is_lfs(name, content):
            return self.send_file(repo_id, name, content, {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": commit})
        digest = sha256(content)
        location = f"{self.hub.cdn_url}/{quote(repo_id)}/{commit}/{quote(name, safe='')}?signature=sig-{digest[:8]}"
        if self.command == "GET" and self.hub.meets(("wrong_etag",), name):
            digest = "0" * 64
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size_of(content)), "ETag": f'"{digest[:32]}"'}
        return self.say(302, {"Location": location, "X-Repo-Commit": commit, **linked})


class _Second(_Handler):
    """The host that large files come from. It takes signed addresses, and no token."""

    def seen(self) -> set[str]:
        return self.hub.leaked

    def route(self) -> None:
        parts = urlsplit(self.path)
        *owner, commit, name = [unquote(part) for part in parts.path.strip("/").split("/")]
        repo = self.hub.repos.get("/".join(owner))
        found = repo.at(commit) if repo else None
        if found is None or name not in found[1] or not parts.query.startswith("signature="):
            return self.say(403)
        content = found[1][name]
        return self.send_file("/".join(owner), name, content, {"ETag": f'"{sha256(content)}"'})


def _is_there(client: socket.socket) -> bool:
    """Whether anybody still waits for an answer: what a killed process had asked for is read when it is long gone."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _all_arrived(client: socket.socket) -> bool:
    """Whether its kernel has every byte that was sent to it."""
    return fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)) == bytes(4)


class _Body:
    """One answer with a file's bytes."""

    def __init__(
        self, handler: _Handler, hub: FakeHub, repo: str, name: str, content: Content, fault: Fault | None
    ) -> None:
        self.handler, self.hub, self.key = handler, hub, (repo, name)
        self.sent = hub.sent if _is_there(handler.connection) else Counter()
        kind = fault.kind if fault else ""
        self.fault, self.kind, self.chunked = fault, kind.removesuffix("_chunked"), kind.endswith("_chunked")
        self.content = other_bytes(content) if self.kind == "other_content" else content
        if self.chunked and isinstance(self.content, Path):  # sendfile writes no chunks
            self.content = self.content.read_bytes()
        self.size = size_of(content)
        if self.kind == "truncated_right" and fault:
            self.size = min(self.size, fault.at)

    def send(self, headers: dict[str, str]) -> None:
        handler = self.handler
        span = self._span()
        if span is None:
            return handler.say(416, {"Content-Range": f"bytes */{self.size}"})
        start, end = span
        with self.hub.lock:
            self.hub.starts.append((*self.key, start))
        ranged = "range" in handler.headers and self._takes_range()
        headers |= {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{self.size}"
        if self.kind == "wrong_etag":
            headers["ETag"] = '"' + "0" * 64 + '"'
        if self.kind == "longer":
            del headers["Content-Length"]
            headers["Connection"] = "close"
            handler.close_connection = True
        if self.chunked:
            del headers["Content-Length"]
            headers["Transfer-Encoding"] = "chunked"
        handler.send_response(206 if ranged else 200)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            self._bytes(start, end)
        return None

    def _takes_range(self) -> bool:
        return self.hub.takes_range and self.kind != "range_ignored"

    def _span(self) -> tuple[int, int] | None:
        wanted = self.handler.headers.get("range", "").removeprefix("bytes=")
        if not wanted or not self._takes_range():
            return 0, self.size
        first, _, last = wanted.partition("-")
        start = int(first) if first else max(0, self.size - int(last))
        end = min(self.size, int(last) + 1) if first and last else self.size
        return (start, end) if start < end else None

    def _bytes(self, start: int, end: int) -> None:
        fault = self.fault
        if fault is None or self.kind in ("other_content", "wrong_etag", "range_ignored", "truncated_right"):
            return self._send(start, end)
        at = fault.at if start <= fault.at < end else start
        if self.kind == "longer":
            self._send(start, end)
            return self._write(bytes(int(fault.value)))
        self._send(start, at)
        if self.kind == "flip":
            self._write(bytes([self._byte(at) ^ (1 << int(fault.value) % 8)]))
            return self._send(at + 1, end)
        if self.kind == "revision":
            with self.hub.lock:
                self.hub.changed[self.key] = int(fault.value)
        if self.kind in ("stall", "drip"):
            self._wait(at, end, fault.value if self.kind == "drip" else None)
        self._end(reset=self.kind in ("cut", "revision"))
        return None

    def _byte(self, at: int) -> int:
        if isinstance(self.content, bytes):
            return self.content[at]
        with self.content.open("rb") as stream:
            stream.seek(at)
            return stream.read(1)[0]

    def _send(self, start: int, end: int) -> None:
        if isinstance(self.content, Path):
            return self._sendfile(self.content, start, end)
        view, piece = memoryview(self.content), _CHUNK if self.chunked else _PIECE
        for at in range(start, end, piece):
            self._write(view[at : min(at + piece, end)])
        return None

    def _sendfile(self, path: Path, start: int, end: int) -> None:
        self.handler.wfile.flush()
        with path.open("rb") as stream:
            while start < end:
                asked, count = min(end - start, 2**23), 0
                self._count(asked)
                try:
                    count = os.sendfile(self.handler.connection.fileno(), stream.fileno(), start, asked)
                finally:
                    self._count(count - asked)
                if count == 0:
                    return
                start += count

    def _write(self, data: bytes | memoryview) -> None:
        self._count(len(data))
        self.handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _count(self, count: int) -> None:
        """Before the bytes are sent: a client that has them all must find them counted."""
        with self.hub.lock:
            self.sent[self.key] += count

    def _wait(self, at: int, end: int, every_s: float | None) -> None:
        """Until the client has gone or the hub is closed; with a byte now and then."""
        told = False
        while not self.hub.closing.is_set():
            readable, _, _ = select.select([self.handler.connection], [], [], every_s or 0.02)
            if readable:
                return
            if not told and _all_arrived(self.handler.connection):
                told = True
                self.hub.stalls.add(self.key[0])
            if every_s is not None and at < end:
                self._send(at, at + 1)
                at += 1

    def _end(self, *, reset: bool) -> None:
        handler = self.handler
        handler.close_connection = True
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()


def _info(repo_id: str, repo: Repo, commit: str, files: Mapping[str, Content]) -> dict[str, Any]:
    siblings = []
    for name, content in files.items():
        entry = _entry(name, content)
        sibling = {"rfilename": name, "size": repo.listed_bytes.get(name, entry["size"]), "blobId": entry["oid"]}
        if lfs := entry.get("lfs"):
            size = repo.listed_bytes.get(name, lfs["size"])
            sibling["lfs"] = {"sha256": lfs["oid"], "size": size, "pointerSize": 134}
        siblings.append(sibling)
    return {"id": repo_id, "modelId": repo_id, "sha": commit, "private": repo.private, "siblings": siblings}


def _entry(name: str, content: Content) -> dict[str, Any]:
    size = size_of(content)
    if not is_lfs(name, content):
        return {"type": "file", "path": name, "size": size, "oid": blob_id(content)}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {size}\n".encode()
    return {
        "type": "file",
        "path": name,
        "size": size,
        "oid": blob_id(pointer),
        "lfs": {"oid": sha256(content), "size": size, "pointerSize": len(pointer)},
    }
