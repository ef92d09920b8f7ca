"""A real `cotenant operator` in a process of its own, outside the cluster, with an `ApiProxy` in between."""

import base64
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

from cotenant_operator.cli import main
from cotenant_serving.packed_config import unpacked
from tests.builders.api_proxy import ApiProxy
from tests.builders.kube import Kube, Object
from tests.builders.ports import free_port
from tests.builders.release import NAMESPACE

QUIET_S = 3.0
"""So long without a write, and it has done what there was to do; one pass takes a fraction of that."""
LEASE = "cotenant-operator"
ROUNDS = ("first", "gateways", "pool")
SERVER = multiprocessing.get_context("forkserver")
"""Forks operators from a process that has imported what they need: hundreds are started and killed."""
SERVER.set_forkserver_preload(["__main__", __name__, "cotenant_operator.controller", "kubernetes", "uvloop"])


class OperatorProcess:
    def __init__(self, folder: Path, kube: Kube, proxy: ApiProxy, name: str = "one", **settings: Any) -> None:
        self.kube, self.proxy, self.name = kube, proxy, name
        self.log = folder / f"operator-{name}.log"
        self.port = free_port()
        self._settings = folder / f"operator-{name}.yaml"
        self._settings.write_text(yaml.safe_dump({"namespace": NAMESPACE, **settings}))
        self._kubeconfig = proxy.kubeconfig(folder)
        self.process: ForkServerProcess | None = None
        self._turn = threading.RLock()
        """How a process ended can be read once, and the thread of the proxy kills while another one looks."""

    def start(self) -> "OperatorProcess":
        arguments = ["operator", "--settings", str(self._settings), "--port", str(self.port)]
        environment = {"KUBECONFIG": str(self._kubeconfig), "POD_NAME": self.name, "POD_NAMESPACE": NAMESPACE}
        self.process = SERVER.Process(target=_operate, args=(arguments, environment, str(self.log)))
        self.process.start()
        return self

    def renew(self) -> "OperatorProcess":
        """Another one, which leads at once: the Lease of a dead one lapses after 15 s only."""
        self.kill()
        forget_lease(self.kube)
        return self.start()

    @property
    def alive(self) -> bool:
        with self._turn:
            return self.process is not None and self.process.is_alive()

    @property
    def returncode(self) -> int | None:
        """Of its last start, as `subprocess` has it."""
        with self._turn:
            return self.process.exitcode if self.process else None

    def kill(self) -> None:
        """As `kill -9` does: it hands nothing over, and its Lease stays."""
        with self._turn:
            self.signal(signal.SIGKILL)
            if self.process:
                self.process.join(30)

    def signal(self, number: int) -> None:
        if self.process and self.process.pid and self.alive:
            os.kill(self.process.pid, number)

    def quiet(self, limit_s: float = 120.0) -> None:
        """Until it leads and has nothing more to write."""
        deadline = time.monotonic() + limit_s
        self.kube.until(lambda: self.leads() or not self.alive, f"{self.name} leads", explain=self.said)
        assert self.alive, self.said()
        count, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            if len(self.proxy.writes) != count:
                count, since = len(self.proxy.writes), time.monotonic()
            assert time.monotonic() < deadline, f"it never ends to write: {self.proxy.writes[-10:]}\n{self.said()}"
            time.sleep(0.1)

    def leads(self) -> bool:
        return "\ncotenant_operator_leader 1.0" in self._metrics()

    def looked(self) -> bool:
        """Has it had a round of each kind that writes for objects, since it leads?"""
        counts = (f'\ncotenant_operator_round_seconds_count{{kind="{kind}"}}' for kind in ROUNDS)
        metrics = self._metrics()
        return all(count in metrics for count in counts)

    def _metrics(self) -> str:
        """As it says itself; one that is stopped or starts says nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""


def _operate(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """What `cotenant` does with these arguments, with the log as its output."""
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    sys.argv = ["cotenant", *arguments]
    sys.exit(main())


def forget_lease(kube: Kube) -> None:
    """The Lease of a dead operator lapses after 15 s; this does not wait for it."""
    kube.delete("Lease", LEASE, NAMESPACE)


TIMES = frozenset(
    {
        "lastTransitionTime",
        "creationTimestamp",
        "created",
        "resourceVersion",
        "uid",
        "managedFields",
        "generation",
        "observedGeneration",
        "clusterIP",
        "clusterIPs",
    }
)
"""What two runs that did the same may differ in."""
APPLIED = "cotenant.dev/applied"
"""A hash over the owner's uid too."""
OWN_KINDS = ("GPUPool", "Tenant", "ModelDeployment", "RayCluster", "Service", "ConfigMap", "Secret")


def picture(kube: Kube) -> dict[str, Object]:
    """All that an operator writes, by kind and name, without times and random values."""
    found = {}
    for kind in OWN_KINDS:
        for one in kube.objects(kind):
            metadata = one["metadata"]
            if metadata.get("namespace", NAMESPACE) != NAMESPACE and kind != "ModelDeployment":
                continue
            if "sh.helm" in one.get("type", "") or metadata["name"] == "kube-root-ca.crt":
                continue
            if kind == "Secret":
                one["data"] = _readable(one.get("data") or {})
            metadata.get("annotations", {}).pop(APPLIED, None)
            found[f"{kind} {metadata.get('namespace', '')}/{metadata['name']}"] = _settled(one)
    return found


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items() if key not in TIMES}
    return [_settled(item) for item in value] if isinstance(value, list) else value


def _readable(data: Mapping[str, str]) -> Object:
    """Of a Secret: JSON as it is without its generation, of the rest only that it is there."""
    texts = {key: unpacked(base64.b64decode(value)).decode() for key, value in data.items()}
    found = {key: json.loads(text) if text.startswith("{") else "…" for key, text in texts.items()}
    for value in found.values():
        if isinstance(value, dict):
            value.pop("generation", None)
    return found


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Each leaf in which two pictures differ, with its path: `one` first."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for at, (left, right) in pairs for line in differences(left, right, f"{where}/{at}")]
    return [] if one == other else [f"{where}: {str(one)[:300]} | {str(other)[:300]}"]
