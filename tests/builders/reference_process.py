"""The reference server as a process of its own: `with reference_server(ttft_ms=20) as server`."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.builders.reference_server import Behaviour, Logged

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ReferenceServer:
    port: int
    pid: int
    log_file: Path | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> dict[str, Logged]:
        """Request id → what really happened; of requests that have ended."""
        assert self.log_file is not None
        lines = self.log_file.read_bytes().splitlines()
        logged = [msgspec.json.decode(line, type=Logged) for line in lines]
        return {each.request_id: each for each in logged}


@contextmanager
def reference_server(
    log_file: Path | None = None, certificate: Path | None = None, **behaviour: Any
) -> Iterator[ReferenceServer]:
    """`behaviour`: fields of `Behaviour`."""
    fields = msgspec.json.encode(Behaviour(**behaviour)).decode()
    command = [sys.executable, "-m", "tests.builders.reference_server", "--behaviour", fields]
    command += ["--log", str(log_file)] if log_file else []
    command += ["--certificate", str(certificate)] if certificate else []
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield ReferenceServer(int(process.stdout.readline()), process.pid, log_file)
        finally:
            process.stdin.close()
            process.wait(10)
