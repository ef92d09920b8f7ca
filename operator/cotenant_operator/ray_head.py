"""How `cotenant up` starts its Ray: the command and environment, nothing else. Pure but for the free ports."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cotenant_operator.plan import DeviceFacts
from cotenant_operator.processes import free_port

OBJECT_STORE_BYTES = 80_000_000
"""Ray's least; no request or weight ever passes through the object store."""


def command(port: int, temp_dir: Path, devices: Mapping[str, DeviceFacts], *, cuda_devices: int) -> list[str]:
    """`ray start --head --block`: ends everything it started when it gets SIGTERM.

    Each worker group is the custom resource `share_<group>`, as many as the machine has devices for it.
    """
    resources = {f"share_{group}": facts.count for group, facts in devices.items() if facts.count}
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
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Which device an engine uses is the conductor's decision; the engine sets the variable itself.
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Ray's default of 15 lets every other program, our own gateway too, take the cores from an engine.
        "RAY_worker_niceness": "0",
        "PYTHONUNBUFFERED": "1",
    }
