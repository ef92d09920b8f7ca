"""Weight caches as programs, one for each node: real processes, their Unix sockets and ports, and calls to both."""

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cotenant_operator.processes import port_is_free

TOKEN = "pool-token-of-a-test"
DEADLINE_S = 60.0
_FIRST_PORT, _PORTS_EACH, _PROCESSES = 12_000, 100, 200
"""Below the ports that kernels give for the asking, 32768 and up; test processes that run at once are neighbours."""
_NUMBERS = itertools.count()


@dataclass
class CacheProgram:
    """One instance. `folder` has its socket and log; `root` is its volume, which others may share."""

    folder: Path
    root: Path
    port: int
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    kept: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def socket(self) -> str:
        return str(self.folder / "c.sock")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> "CacheProgram":
        token = self.folder / "token"
        token.write_text(TOKEN)
        words = [sys.executable, "-m", "cotenant_serving.weight_cache", "--root", str(self.root)]
        words += ["--socket", self.socket, "--listen", self.address, "--token-file", str(token), *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, env={**os.environ, **self.environment}, stderr=log, stdout=log)
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.socket)
                if self.get("/healthz")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"it does not answer: {self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        for connection in self.kept:
            connection.close()
        self.kept.clear()
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self.process = None
        return code

    def get(self, path: str, token: str = TOKEN, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        return self._call("GET", path, b"", token, headers or {})

    def post(self, path: str, body: object, token: str = TOKEN) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._call("POST", path, data, token, {})

    def report(self) -> dict[str, Any]:
        status, body = self.get("/v1/models")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def models(self) -> dict[str, dict[str, Any]]:
        return {model["repo"]: model for model in self.report().get("models", ())}

    def lines(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """Of an answer that comes bit by bit. The connection stays open until `stop`."""
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE_S)
        self.kept.append(connection)
        connection.request("POST", path, json.dumps(body), {"authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return (json.loads(line) for line in answer if line.strip())

    def _call(self, verb: str, path: str, body: bytes, token: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE_S)
        try:
            authorization = {"authorization": f"Bearer {token}"} if token else {}
            connection.request(verb, path, body, {**authorization, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class CacheNodes:
    """Makes programs, and ends those that still run."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self.programs: list[CacheProgram] = []

    def start(self, *options: str, root: Path | None = None) -> CacheProgram:
        """With a budget, so that it does not matter what else is on the disk of who tests."""
        if "--budget" not in options:
            options = (*options, "--budget", "1T")
        folder = self._folder / f"n{len(self.programs)}"
        folder.mkdir()
        made = CacheProgram(folder, root or folder / "volume", free_port(), self._environment, options)
        made.root.mkdir(exist_ok=True)
        self.programs.append(made)
        return made.start()


@contextmanager
def cache_nodes(folder: Path, environment: Mapping[str, str]) -> Iterator[CacheNodes]:
    nodes = CacheNodes(folder, environment)
    try:
        yield nodes
    finally:
        for program in nodes.programs:
            program.stop(signal.SIGKILL)


def free_port() -> int:
    """Of this test process, whoever else asks the kernel for a port: a node that was killed finds it free again."""
    for _ in range(_PORTS_EACH):
        port = _FIRST_PORT + os.getpid() % _PROCESSES * _PORTS_EACH + next(_NUMBERS) % _PORTS_EACH
        if port_is_free("127.0.0.1", port):
            return port
    raise AssertionError("none of this process's ports is free")
