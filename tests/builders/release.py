"""cotenant in a cluster: installed by `helm` as a user would, reached through its gateway's Service, taken away."""

import contextlib
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.builders.calls import Calls
from tests.builders.cluster_settings import ClusterSettings
from tests.builders.kube import Kube, Object, condition, namespace

CHART = Path(__file__).parents[2] / "charts" / "cotenant"
NAMESPACE = "cotenant-system"
NAME = "cotenant"
GATEWAY = "cotenant-gateway"
PROGRAMS = ("cotenant-operator", GATEWAY)
"""Deployments of the chart."""
PORT = 80
HELM_S = 300.0
PATIENT = {"gateway": {"holdTimeoutSeconds": 300}}
"""A first pod may take long on a machine that is busy with tests: no request is given up before."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
MARK = "cotenant-tests"
"""Label of the namespaces that tests made: a cluster with another cotenant is not touched."""
KINDS = ("ModelDeployment", "Tenant", "GPUPool")


class Release(Calls):
    """`install` it. Calls go to the gateway's Service (calls.py), with `host` and `port` once it is reached."""

    patience_s = 400.0

    def __init__(self, kube: Kube, settings: ClusterSettings) -> None:
        self.kube, self.settings = kube, settings
        self.namespace = NAMESPACE
        self._stack = contextlib.ExitStack()
        self.port = 0

    def install(self, values: Mapping[str, Any] | None = None) -> str:
        """Returns what helm printed. Installs again with other values where it is there."""
        self.kube.apply(namespace(NAMESPACE, **{MARK: "true", **RESTRICTED}))
        given = merged(merged(PATIENT, self.settings.values), values or {})
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(given, file)
            file.flush()
            return self.helm("upgrade", "--install", NAME, str(CHART), "--values", file.name, "--wait=false")

    def helm(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["helm", *arguments, "--namespace", NAMESPACE],
            env=self.kube.environment,
            capture_output=True,
            text=True,
            timeout=HELM_S,
            check=False,
        )
        assert done.returncode == 0 or not check, f"helm {arguments[0]}: {done.stderr}\n{self.kube.story()}"
        return done.stdout + done.stderr

    def reach(self) -> "Release":
        """Waits for a ready gateway, and finds a way to its Service."""
        self.kube.until(lambda: self.endpoints(GATEWAY), "a gateway is ready")
        self.host, self.port = self._stack.enter_context(reached(self.kube, GATEWAY, NAMESPACE, PORT))
        return self

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def direct(self) -> bool:
        """The Service itself is reached, so that calls go on when a gateway's pod goes."""
        return self.host.endswith(f"{NAMESPACE}.svc.cluster.local")

    def endpoints(self, service: str) -> list[str]:
        """Addresses of its ready pods."""
        slices = self.kube.objects("EndpointSlice", NAMESPACE, f"kubernetes.io/service-name={service}")
        return [
            address
            for one in slices
            for endpoint in one.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready")
            for address in endpoint["addresses"]
        ]

    def pods(self, labels: str = "") -> list[Object]:
        """Those that are not on their way out."""
        found = self.kube.objects("Pod", NAMESPACE, labels)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def model(self, name: str, namespace: str) -> Object:
        return self.kube.get("ModelDeployment", name, namespace)

    def settled(self, name: str, namespace: str) -> bool:
        """A model is as its newest spec wants it, as the operator's last look at that has it."""
        found = self.model(name, namespace)
        status = found.get("status", {})
        return (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("revision") == status.get("targetRevision")
            and status.get("replicas", {}).get("ready", 0) >= found["spec"]["replicas"]["min"]
            and condition(found, "Ready").get("status") == "True"
        )

    def scale_programs(self, replicas: int) -> None:
        """Operators and gateways alike; returns when no pod of them is left where it is 0."""
        for name in PROGRAMS:
            self.kube.patch("Deployment", name, NAMESPACE, {"spec": {"replicas": replicas}})
        for name in PROGRAMS if replicas == 0 else ():
            labels = f"app.kubernetes.io/component={name.removeprefix('cotenant-')}"
            self.kube.until(lambda: not self.kube.objects("Pod", NAMESPACE, labels), f"{name} is gone")  # noqa: B023

    def uninstall(self) -> None:
        """Objects of ours first, then the release, as the chart's notes say; nothing of tests stays but the CRDs."""
        self._stack.close()
        remove_objects(self.kube)
        if self.kube.find("Namespace", NAMESPACE):
            self.helm("uninstall", NAME, "--ignore-not-found", "--wait=false")
            self.kube.until(lambda: not self.kube.objects("RayCluster", NAMESPACE), "its RayClusters are gone")
        remove_namespaces(self.kube)


def until_served(kube: Kube) -> None:
    """A CRD is established a moment before the API server answers for its kind."""
    for kind in KINDS:
        kube.until(lambda: kube.call("GET", kube.path(kind)), f"{kind}s are served")  # noqa: B023


def remove_objects(kube: Kube) -> None:
    for kind in KINDS:
        for one in kube.objects(kind):
            kube.delete(kind, one["metadata"]["name"], one["metadata"].get("namespace", ""))
    for kind in KINDS:
        kube.until(lambda: not kube.objects(kind), f"all of {kind} are gone", pause_s=0.05)  # noqa: B023


def remove_namespaces(kube: Kube) -> None:
    """All that tests made, at once. Their pods without their grace: what drains has been looked at by then."""
    for name, goes in own_namespaces(kube).items():
        if not goes:
            kube.delete("Namespace", name)

    def gone() -> bool:
        left = own_namespaces(kube)
        for name in left:
            for pod in kube.objects("Pod", name):
                if "deletionTimestamp" in pod["metadata"]:
                    kube.delete("Pod", pod["metadata"]["name"], name, grace_s=0)
        return not left

    kube.until(gone, "the tests' namespaces are gone")


def own_namespaces(kube: Kube) -> dict[str, bool]:
    """Those that tests made, by name: is it on its way out?"""
    found = [one["metadata"] for one in kube.objects("Namespace", labels=f"{MARK}=true")]
    return {metadata["name"]: "deletionTimestamp" in metadata for metadata in found}


def another_cotenant(kube: Kube) -> str:
    """Why this cluster is not for tests; empty when it is."""
    own = own_namespaces(kube)
    for one in kube.objects("Secret", labels=f"owner=helm,name={NAME}"):
        where = one["metadata"]["namespace"]
        if where not in own:
            return f"namespace {where} has a release {NAME} that these tests did not install"
    return ""


@contextlib.contextmanager
def reached(kube: Kube, service: str, namespace: str, port: int) -> Iterator[tuple[str, int]]:
    """(host, port): the Service itself where its name is known here, else through `kubectl port-forward`."""
    host = f"{service}.{namespace}.svc.cluster.local"
    if knows_names_of_services():
        kube.until(lambda: _connects(host, port), f"{host}:{port} is reached: its first pod was ready a moment ago")
        yield host, port
        return
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{service}", f":{port}"]
    process = subprocess.Popen(
        command, env=kube.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, f"{' '.join(command)} found no pod"
        yield "127.0.0.1", int(found[1])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def knows_names_of_services() -> bool:
    """This program runs in the cluster's network."""
    try:
        return bool(socket.getaddrinfo("kubernetes.default.svc.cluster.local", 443))
    except OSError:
        return False


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As helm merges values: maps by key, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result
