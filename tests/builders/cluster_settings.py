"""What the ring `cluster` is told about the cluster that KUBECONFIG names, in the YAML file COTENANT_TEST_CLUSTER.

All of it may be absent: the chart's own images are installed then (`kind load docker-image` them first), and tests
that have to break the cluster itself say which command they miss and are skipped. With the file, tests fail where
nothing can be installed, and are not skipped.

    values: {…}          # for `helm install`: images, extraEnv
    models: /folder      # where the operator's and the workers' containers have the demo's two models
    redis: redis:8       # image with redis-server
    host: 10.0.0.1       # address of the machine with these tests, as pods reach it
    commands:            # run by a shell; {node} is replaced
      node-crash: docker kill {node}
      node-start: docker start {node}
      api-server-stop: docker pause kind-control-plane
      api-server-start: docker unpause kind-control-plane
      kuberay-stop: kubectl scale -n kuberay-system deployment/kuberay-operator --replicas=0
      kuberay-start: kubectl scale -n kuberay-system deployment/kuberay-operator --replicas=1
"""

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMANDS = frozenset(
    {"node-crash", "node-start", "api-server-stop", "api-server-start", "kuberay-stop", "kuberay-start"}
)
COMMAND_S = 180.0
FILE = "COTENANT_TEST_CLUSTER"
REDIS = "redis:8"
"""Image with redis-server."""
MODELS = "/opt/cotenant/lib/python3.11/site-packages/cotenant_serving/demo_models"
"""In the project's own images."""


@dataclass(frozen=True)
class ClusterSettings:
    values: dict[str, Any] = field(default_factory=dict)
    models: str = MODELS
    redis: str = REDIS
    host: str = ""
    commands: dict[str, str] = field(default_factory=dict)

    def hub_host(self) -> str:
        """Where a hub of a test can listen for pods, or skip the test."""
        if not self.host:
            pytest.skip(f"{FILE} names no host: pods could not reach a hub that runs beside these tests")
        return self.host

    def command(self, name: str, **replaced: str) -> None:
        """Run it, or skip the test and say what would be needed."""
        self.needs(name)
        line = self.commands[name]
        for key, value in replaced.items():
            line = line.replace("{" + key + "}", shlex.quote(value))
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=COMMAND_S, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def needs(self, *names: str) -> None:
        """Skip before anything is broken."""
        for name in names:
            assert name in COMMANDS
            if name not in self.commands:
                pytest.skip(f"{FILE} names no command {name}")


def read_settings() -> ClusterSettings:
    path = os.environ.get(FILE)
    if not path:
        return ClusterSettings()
    found = yaml.safe_load(Path(path).read_text())
    known = {"values", "models", "redis", "host", "commands"}
    unknown = set(found) - known | set(found.get("commands", {})) - COMMANDS
    assert not unknown, f"{path}: unknown: {', '.join(sorted(unknown))}"
    return ClusterSettings(**found)
