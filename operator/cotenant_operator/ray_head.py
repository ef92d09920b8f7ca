"""How `cotenant up` starts its Ray: the command and environment, nothing else. Pure but for the free ports."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cotenant_operator.plan import DeviceFacts
from cotenant_operator.processes import free_port
from cotenant_operator.ray_environment import OBJECT_STORE_BYTES, RAY_ENVIRONMENT
from cotenant_serving.contract import share_resource


def command(port: int, temp_dir: Path, devices: Mapping[str, DeviceFacts], *, cuda_devices: int) -> list[str]:
    """`ray start --head --block`: ends everything it started when it gets SIGTERM.

    Each worker group is a custom resource, as many as the machine has devices for it.
    """
    resources = {share_resource(group): facts.count for group, facts in devices.items() if facts.count}
    fixed = {
        "port": port,
        "temp-dir": temp_dir,
        "num-cpus": os.cpu_count() or 1,
        "num-gpus": cuda_devices,
        "resources": json.dumps(resources),
        "object-store-memory": OBJECT_STORE_BYTES,
        "include-dashboard": "false",
        "include-log-monitor": "false",
        # 0: the system picks free ports, so that several clusters live on one machine.
        "min-worker-port": 0,
        "max-worker-port": 0,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
        "dashboard-agent-grpc-port": free_port(),
        "runtime-env-agent-port": free_port(),
        "metrics-export-port": free_port(),
    }
    options = [f"--{name}={value}" for name, value in fixed.items()]
    return [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats", *options]


def environment(token_file: Path) -> dict[str, str]:
    """For Ray and for every process that talks to it."""
    return {
        **RAY_ENVIRONMENT,
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
