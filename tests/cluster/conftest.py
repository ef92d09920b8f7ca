"""Ring `cluster`: real components on the Kubernetes that KUBECONFIG names. Skipped, with the reason, without one.

Only the variable counts: the cluster that `~/.kube/config` happens to name is never touched. Every file installs
cotenant for itself and takes it away again, one after the other: its objects are the cluster's, not a namespace's.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.builders.cluster_settings import FILE, ClusterSettings, read_settings
from tests.builders.kube import Kube, advertise, namespace
from tests.builders.release import MARK, Release, another_cotenant

HERE = Path(__file__).parent
TIMEOUT_S = 900
"""Of one test, unless it has a mark of its own; four times as much at full size."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = config.getoption("--full")
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.cluster)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S * (4 if full else 1)))
        if item.get_closest_marker("full_only") and not full:
            item.add_marker(pytest.mark.skip("`make test-cluster-full` runs it"))


def leave_out(reason: str) -> NoReturn:
    """Skip. Whoever has told what the cluster is has it for these tests: they fail there."""
    if os.environ.get(FILE):
        pytest.fail(f"{FILE} is set, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def api_server() -> Iterator[Kube]:
    """Of a cluster without another cotenant. An API server that does not answer fails the tests."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        leave_out("KUBECONFIG names no cluster (see `make test-cluster`)")
    if shutil.which("kubectl") is None:
        leave_out("kubectl is not installed")
    found = Kube(path)
    try:
        if reason := another_cotenant(found):
            leave_out(f"the cluster of KUBECONFIG: {reason}")
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def kube(api_server: Kube) -> Kube:
    """The same, where cotenant can be installed and pools can have pods."""
    if shutil.which("helm") is None:
        leave_out("helm is not installed")
    if api_server.find("CustomResourceDefinition", "rayclusters.ray.io") is None:
        leave_out("KubeRay is not installed (helm install kuberay-operator kuberay/kuberay-operator)")
    return api_server


@pytest.fixture(scope="session")
def cluster_settings() -> ClusterSettings:
    return read_settings()


@pytest.fixture(scope="session")
def size(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """`size(30)` is 30 with `--full`, else a fifth."""
    full = bool(pytestconfig.getoption("--full"))
    return lambda count: count if full else max(1, count // 5)


@pytest.fixture(scope="module")
def release(kube: Kube, cluster_settings: ClusterSettings) -> Iterator[Release]:
    """Nothing is installed yet, nor left of an earlier run."""
    made = Release(kube, cluster_settings)
    made.uninstall()
    yield made
    made.uninstall()


@pytest.fixture(scope="module")
def namespaces(kube: Kube, release: Release) -> Callable[[str], str]:
    """Makes namespaces, which go with the release."""

    def make(name: str) -> str:
        kube.until(lambda: kube.apply(namespace(name, **{MARK: "true"})), f"namespace {name} is there")
        return name

    return make


@pytest.fixture
def phases(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Each call says how long that phase took: `phases("first pod")`."""
    begun = time.monotonic()
    last = begun

    def say(name: str) -> None:
        nonlocal last
        now = time.monotonic()
        with capsys.disabled():
            print(f"\n  {name}: {now - last:.1f} s ({now - begun:.1f} s in all)", flush=True)
        last = now

    return say


@pytest.fixture(scope="module")
def gpus(kube: Kube) -> Iterator[Callable[[dict[str, int]], None]]:
    """`gpus({"nvidia.com/gpu": 1})`: every node that takes pods says it has so many. Until the file's last test."""
    said: set[str] = set()

    def every_node(resources: dict[str, int]) -> None:
        said.update(resources)
        for one in kube.objects("Node"):
            if not one["spec"].get("unschedulable"):
                advertise(kube, one["metadata"]["name"], resources)

    yield every_node
    every_node(dict.fromkeys(said, 0))
