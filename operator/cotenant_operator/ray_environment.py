"""How every Ray of ours runs, on one machine and in a cluster. Plain values."""

from collections.abc import Mapping

OBJECT_STORE_BYTES = 80_000_000
"""Ray's least; no request or weight ever passes through the object store."""

RAY_START: Mapping[str, str] = {
    "object-store-memory": str(OBJECT_STORE_BYTES),
    # Engines' logs are their own. "0", for KubeRay leaves out an option that is "false".
    "include-log-monitor": "0",
    # Left to its agents to find, a raylet ends itself when they take more than 15 s, as they do on busy nodes.
    "dashboard-agent-grpc-port": "8081",
    "runtime-env-agent-port": "8082",
}
"""Options of `ray start` on every node of a pool in a cluster."""

RAY_ENVIRONMENT: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Which device an engine uses is the conductor's decision; the engine sets the variable itself.
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Ray's default of 15 lets every other program, our own gateway too, take the cores from an engine.
    "RAY_worker_niceness": "0",
    "PYTHONUNBUFFERED": "1",
}
"""Environment of Ray and of every process that talks to it, without where its token stands."""
