"""A real `cotenant operator` in a process of its own, outside the cluster, with an `ApiProxy` in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from cotenant_operator.processes import free_port
from tests.builders.api_proxy import ApiProxy
from tests.builders.kube import Kube, Object
from tests.builders.release import NAMESPACE

QUIET_S = 3.0
"""So long without a write, and it has done what there was to do; one pass takes a fraction of that."""
LEASE = "cotenant-operator"


class OperatorProcess:
    def __init__(self, folder: Path, kube: Kube, proxy: ApiProxy, name: str = "one", **settings: Any) -> None:
        self.kube, self.proxy, self.name = kube, proxy, name
        self.log = folder / f"operator-{name}.log"
        self.port = free_port()
        self._settings = folder / f"operator-{name}.yaml"
        self._settings.write_text(yaml.safe_dump({"namespace": NAMESPACE, **settings}))
        self._kubeconfig = proxy.kubeconfig(folder)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "OperatorProcess":
        command = [sys.executable, "-m", "cotenant_operator", "operator", "--settings", str(self._settings)]
        command += ["--port", str(self.port)]
        environment = {**os.environ, "KUBECONFIG": str(self._kubeconfig), "POD_NAME": self.name}
        environment |= {"POD_NAMESPACE": NAMESPACE}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As `kill -9` does: it hands nothing over, and its Lease stays."""
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait(30)

    def signal(self, number: int) -> None:
        if self.process and self.alive:
            self.process.send_signal(number)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        if self.process:
            self.process.wait(60)

    def quiet(self, limit_s: float = 120.0) -> None:
        """Until it leads and has nothing more to write."""
        deadline = time.monotonic() + limit_s
        self.kube.until(lambda: self.holds_lease() or not self.alive, f"{self.name} leads", explain=self.said)
        assert self.alive, self.said()
        count, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            if len(self.proxy.writes) != count:
                count, since = len(self.proxy.writes), time.monotonic()
            assert time.monotonic() < deadline, f"it never ends to write: {self.proxy.writes[-10:]}\n{self.said()}"
            time.sleep(0.1)

    def holds_lease(self) -> bool:
        lease = self.kube.find("Lease", LEASE, NAMESPACE)
        return lease is not None and str(lease["spec"].get("holderIdentity", "")).startswith(self.name)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""


def forget_lease(kube: Kube) -> None:
    """The Lease of a dead operator lapses after 15 s; this does not wait for it."""
    kube.delete("Lease", LEASE, NAMESPACE)


TIMES = frozenset(
    {"lastTransitionTime", "creationTimestamp", "resourceVersion", "uid", "managedFields", "generation"}
)
"""What two runs that did the same may differ in; `observedGeneration` and generations of conductors, too."""
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
            found[f"{kind} {metadata.get('namespace', '')}/{metadata['name']}"] = _settled(one)
    return found


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("kind") == "Secret":
            value = {**value, "data": sorted(value.get("data") or {})}
        return {
            key: _settled(item)
            for key, item in value.items()
            if key not in TIMES and key != "observedGeneration" and key not in ("clusterIP", "clusterIPs")
        }
    return [_settled(item) for item in value] if isinstance(value, list) else value
