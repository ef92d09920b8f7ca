"""`make bench-operator`: what 1,000 ModelDeployments cost cotenant's operator, beside two on kopf. A real API server.

KUBECONFIG names a cluster that has KubeRay and no cotenant; it has none afterwards. All three operators run on this
machine, in turn, round by round. kopf's write one condition of status for each object and nothing else; cotenant's
plans all of them in one pool, and writes five conditions, the gateways' configuration and events.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from tests.builders.kube import Kube, Object, condition, namespace
from tests.builders.release import (
    CHART,
    MARK,
    NAMESPACE,
    another_cotenant,
    remove_namespaces,
    remove_objects,
    until_served,
)
from tests.builders.up import echo, pool, until

from benchmarks.measuring import cpu_s, finish, machine, markdown, median
from cotenant_operator.doctor.install_checks import CRDS
from cotenant_operator.processes import free_port

PEER = Path(__file__).parents[1] / ".peers" / "kopf" / "bin" / "kopf"
PEER_OPERATOR = Path(__file__).parent / "peers" / "kopf_operator.py"
WHERE = "cotenant-bench"
QUIET_S = 3.0
LIMIT_S = 600.0
MIB = 2**20
RESYNC_S = 5.0
LOOKS = 6
"""Resyncs that are measured together."""
Start = Callable[[Path], subprocess.Popen[bytes]]


@dataclass
class Cost:
    """Of one operator; lists have one number a round."""

    cpu_ms: list[float] = field(default_factory=list)
    """For each object, from its creation until everything is quiet."""
    seconds: list[float] = field(default_factory=list)
    """Until the last object had its verdict."""
    mib: list[float] = field(default_factory=list)
    """Resident once it is quiet, with all objects there."""
    delete_cpu_ms: list[float] = field(default_factory=list)


def start_cotenant(folder: Path, **timeouts: str) -> subprocess.Popen[bytes]:
    settings = folder / "operator.yaml"
    value = {"namespace": NAMESPACE, "defaultPool": {"enabled": False}, "timeouts": timeouts}
    settings.write_text(yaml.safe_dump(value))
    command = [sys.executable, "-m", "cotenant_operator", "operator", "--settings", str(settings)]
    environment = {**os.environ, "POD_NAMESPACE": NAMESPACE, "POD_NAME": f"bench-{time.monotonic_ns()}"}
    return run([*command, "--port", str(free_port())], folder / "cotenant.log", environment)


def start_kopf(folder: Path, *, plain: bool = False) -> subprocess.Popen[bytes]:
    command = [str(PEER), "run", "--standalone", "--all-namespaces", "--quiet", str(PEER_OPERATOR)]
    environment = {**os.environ, **({"PLAIN": "1"} if plain else {})}
    environment.pop("PYTHONPATH", None)
    return run(command, folder / "kopf.log", environment)


def run(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)


@contextmanager
def running(start: Start, folder: Path, kube: Kube) -> Iterator[subprocess.Popen[bytes]]:
    """Started, and with nothing to do yet."""
    kube.delete("Lease", "cotenant-operator", NAMESPACE)
    process = start(folder)
    try:
        settle(process)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def settle(process: subprocess.Popen[bytes]) -> float:
    """Until it has used next to no CPU for a while; its CPU seconds by then."""
    used, since = -1.0, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        assert process.poll() is None, "the operator ended; see its log"
        now = cpu_s([process.pid])
        if now - used > 0.05 * QUIET_S:
            used, since = now, time.monotonic()
        time.sleep(0.2)
    return cpu_s([process.pid])


def one_round(kube: Kube, folder: Path, start: Start, count: int, cost: Cost) -> None:
    """Create, wait for verdicts, delete, wait until nothing is left. CPU is the operator's own process."""
    with running(start, folder, kube) as process:
        before, began = cpu_s([process.pid]), time.monotonic()
        create(kube, count)
        cost.seconds.append(time.monotonic() - began)
        cost.cpu_ms.append(1000 * (settle(process) - before) / count)
        cost.mib.append(psutil.Process(process.pid).memory_info().rss / MIB)
        before = cpu_s([process.pid])
        delete(kube)
        cost.delete_cpu_ms.append(1000 * (settle(process) - before) / count)


def create(kube: Kube, count: int) -> None:
    """Until all have a verdict."""

    def one(number: int) -> Object:
        return kube.create(echo(f"model-{number:04}", namespace=WHERE, gpu={"memory": "256Mi"}))

    with ThreadPoolExecutor(8) as many:
        list(many.map(one, range(count)))
    until(lambda: verdicts(kube) == count, f"{count} verdicts", limit_s=LIMIT_S, pause_s=1.0)


def verdicts(kube: Kube) -> int:
    """Accepted ones: to refuse a model costs less than to plan it."""
    found = kube.objects("ModelDeployment", WHERE)
    return sum(condition(one, "Accepted").get("status") == "True" for one in found)


def delete(kube: Kube) -> None:
    kube.call("DELETE", kube.path("ModelDeployment", namespace=WHERE))
    until(lambda: not kube.objects("ModelDeployment", WHERE), "all are gone", limit_s=LIMIT_S, pause_s=1.0)


def resync(kube: Kube, folder: Path, count: int) -> tuple[float, int]:
    """(CPU ms for each object of one resync that changes nothing, objects written by LOOKS of them)."""
    used, changed = {}, 0
    for name, timeouts in (("never", {"resync": "1h"}), ("often", {"resync": f"{RESYNC_S:.0f}s"})):
        with running(lambda where, given=timeouts: start_cotenant(where, **given), folder, kube) as process:  # type: ignore[misc]
            if name == "never":
                create(kube, count)
                settle(process)
            else:
                time.sleep(2 * RESYNC_S)
                settle(process)
            versions, before = resource_versions(kube), cpu_s([process.pid])
            time.sleep(LOOKS * RESYNC_S)
            used[name] = cpu_s([process.pid]) - before
            written = [key for key, version in resource_versions(kube).items() if versions.get(key) != version]
            changed = len(written)
            if written:
                print(f"{name}: written meanwhile: {', '.join(written)}", flush=True)
    delete(kube)
    return 1000 * (used["often"] - used["never"]) / LOOKS / count, changed


def resource_versions(kube: Kube) -> dict[str, str]:
    """Of everything that the operator may write."""
    kinds = ("ModelDeployment", "GPUPool", "Tenant", "RayCluster", "Service", "Secret", "ConfigMap", "Event")
    found = [(kind, one["metadata"]) for kind in kinds for one in kube.objects(kind)]
    return {f"{kind} {one.get('namespace')}/{one['name']}": one["resourceVersion"] for kind, one in found}


def left(kube: Kube) -> list[str]:
    """What is still there of a pool and its models, once they are deleted."""
    remove_objects(kube)
    found: list[str] = []

    def nothing() -> bool:
        found[:] = [
            f"{kind} {one['metadata']['name']}"
            for kind in ("RayCluster", "Service", "ConfigMap")
            for one in kube.objects(kind, NAMESPACE, "app.kubernetes.io/managed-by=cotenant")
        ]
        return not found

    try:
        until(nothing, "nothing is left", limit_s=60, pause_s=1.0)
    except AssertionError:
        return found
    return []


@contextmanager
def prepared(kube: Kube) -> Iterator[None]:
    """The CRDs, two namespaces, and a pool whose pods no node takes."""
    there = kube.find("CustomResourceDefinition", CRDS[0]) is not None
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files" / "crds"))
    kube.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in CRDS), "--timeout=60s")
    try:
        until_served(kube)
        remove_objects(kube)
        for name in (NAMESPACE, WHERE):
            kube.until(lambda: kube.apply(namespace(name, **{MARK: "true"})), f"namespace {name}")  # noqa: B023
        nowhere = {"cotenant.dev/bench": "no-node-has-it"}
        group: dict[str, Any] = {"name": "cpu", "device": "cpu", "memory": "8Gi", "max": 1, "nodeSelector": nowhere}
        made = pool(group)
        made["spec"]["head"] = {"nodeSelector": nowhere}
        kube.apply(made)
        yield
    finally:
        remove_objects(kube)
        remove_namespaces(kube)
        for name in () if there else CRDS:
            kube.delete("CustomResourceDefinition", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="ModelDeployments")
    arguments = parser.parse_args()
    path = os.environ.get("KUBECONFIG")
    if not path:
        parser.error("KUBECONFIG names no cluster; with kind: kind create cluster, and install KubeRay")
    kube = Kube(path)
    try:
        if reason := another_cotenant(kube):
            parser.error(reason)
        with prepared(kube), tempfile.TemporaryDirectory(prefix="cotenant-bench-") as folder:
            report(kube, Path(folder), arguments.rounds, arguments.count)
    finally:
        kube.close()


def report(kube: Kube, folder: Path, rounds: int, count: int) -> None:
    print(f"Machine: {machine()}")
    starts: dict[str, Start] = {
        "cotenant": start_cotenant,
        "kopf, raw events": lambda where: start_kopf(where, plain=True),
        "kopf, handlers": start_kopf,
    }
    costs = {name: Cost() for name in starts}
    for number in range(rounds):
        for name, start in starts.items():
            one_round(kube, folder, start, count, costs[name])
            said = f"{costs[name].cpu_ms[-1]:.2f} ms an object, {costs[name].seconds[-1]:.1f} s"
            print(f"round {number + 1}: {name}: {said}", file=sys.stderr, flush=True)
    resync_ms, writes = resync(kube, folder, count)
    rest = left(kube)
    rows = [row(name, cost) for name, cost in costs.items()]
    print(f"\n**operator**: {count} ModelDeployments at once, medians of {rounds} rounds\n")
    print(markdown(["", "CPU ms an object", "to delete it", "s to the last verdict", "MiB"], rows))
    print(f"\nA resync that changes nothing: {resync_ms:.3f} ms CPU an object, {writes} objects written by {LOOKS}.")
    print(f"After deleting everything: {', '.join(rest) or 'nothing left'}.\n")
    own = costs["cotenant"]
    finish(
        {
            "cpu_ratio": ratio(own, costs["kopf, handlers"]),
            "cpu_ratio_raw_events": ratio(own, costs["kopf, raw events"]),
            "cpu_ms": median(own.cpu_ms),
            "resync_cpu_ms": resync_ms,
            "resync_writes": writes,
            "verdict_s": median(own.seconds),
            "memory_mib": max(own.mib),
            "left": len(rest),
        }
    )


def row(name: str, cost: Cost) -> list[str]:
    medians = [median(cost.cpu_ms), median(cost.delete_cpu_ms), median(cost.seconds)]
    return [name, *(f"{value:.2f}" for value in medians), f"{max(cost.mib):.0f}"]


def ratio(own: Cost, peer: Cost) -> float:
    return median(mine / theirs for mine, theirs in zip(own.cpu_ms, peer.cpu_ms, strict=True))


if __name__ == "__main__":
    main()
