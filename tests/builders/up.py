"""A real `cotenant up` in a process of its own: start it, edit its files, talk to it, end it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from cotenant_operator.control import ControlClient, ControlError
from cotenant_serving.contract import EngineStatus, ModelStatus, PoolStatus
from tests.builders.calls import PATIENCE_S, Calls, key_of
from tests.builders.ports import free_port
from tests.builders.terminal import Terminal

API = "cotenant.dev/v1alpha1"


def model(name: str, *, namespace: str = "search", **spec: Any) -> dict[str, Any]:
    spec = spec or {"task": "echo"}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API, "kind": "ModelDeployment", "metadata": metadata, "spec": spec}


def echo(name: str, *, namespace: str = "search", **engine: Any) -> dict[str, Any]:
    extra = {key: engine.pop(key) for key in ("gpu", "replicas", "tenants") if key in engine}
    return model(name, namespace=namespace, task="echo", engine=engine, **extra)


def tenant(name: str, **spec: Any) -> dict[str, Any]:
    """Bound to the namespace of its name, with the key `key-of-NAME` (see `keys`)."""
    body = {"namespaces": [name], "keys": [{"secretRef": {"name": "keys", "key": name}}], **spec}
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": body}


def keys(*names: str) -> dict[str, Any]:
    metadata = {"name": "keys", "namespace": "cotenant-system"}
    values = {name: key_of(name) for name in names}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def pool(*workers: dict[str, Any]) -> dict[str, Any]:
    groups = list(workers) or [{"name": "cpu", "device": "cpu", "memory": "6Gi"}]
    return {"apiVersion": API, "kind": "GPUPool", "metadata": {"name": "default"}, "spec": {"workers": groups}}


class Up(Calls):
    """`documents` is what stands in the one YAML file; assign to it and the file is rewritten."""

    def __init__(self, folder: Path, *documents: dict[str, Any], options: tuple[str, ...] = ()) -> None:
        self.options = options
        self.folder = folder
        self.file = folder / "models.yaml"
        self.state = folder / "state"
        self.port = free_port()
        self.log = folder / "up.log"
        self.write(*documents)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, *documents: dict[str, Any]) -> None:
        new = self.file.with_suffix(".tmp")
        new.write_text(yaml.safe_dump_all(documents))
        new.replace(self.file)

    def start(self, *, terminal: bool = False) -> "Up":
        """`terminal`: it shows what a person would see, but for colours."""
        command = [sys.executable, "-m", "cotenant_operator", "up", "-f", str(self.file)]
        command += ["--port", str(self.port), "--state", str(self.state), *self.options]
        if terminal:
            self.process = Terminal(command, self.log, NO_COLOR="1").process
        else:
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        until(lambda: "ready: http" in self.said() or not self.alive, "up is ready", explain=self.said)
        assert self.alive, self.said()
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.alive:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def processes(self) -> list[psutil.Process]:
        """Everything that carries this run's mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("COTENANT_STATE_DIR") == str(self.state):
                    found.append(process)
        return found

    def child(self, module: str) -> psutil.Process:
        return next(
            process
            for process in self.processes()
            if module in " ".join(process.cmdline()) and "tether" not in " ".join(process.cmdline())
        )

    def status(self) -> PoolStatus:
        return ControlClient.of_state(self.state).status()

    def model(self, name: str) -> ModelStatus:
        return next(found for found in self.status().models if found.model == name)

    def engine(self, name: str) -> EngineStatus:
        """The first engine of the model that is ready."""
        return next(engine for engine in self.model(name).engines if engine.state == "ready")

    def wait_for(self, name: str, *states: str) -> ModelStatus:
        def reached() -> ModelStatus | None:
            with contextlib.suppress(ControlError, StopIteration):
                found = self.model(name)
                return found if found.state in states else None
            return None

        found = until(reached, f"{name} is {' or '.join(states)}", explain=self.said)
        assert found is not None
        return found

    def usage(self) -> list[dict[str, Any]]:
        path = self.state / "gateway" / "usage.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}\n")]  # the last one may be in its write


def until(
    condition: Callable[[], Any],
    what: str,
    *,
    explain: Callable[[], str] = str,
    limit_s: float = 90.0,
    pause_s: float = 0.05,
) -> Any:
    """Poll until the condition holds; the limit only ends a test that has failed."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(pause_s)
    raise AssertionError(f"never happened: {what}\n{explain()}")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
