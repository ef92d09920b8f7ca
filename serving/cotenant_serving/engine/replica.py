"""The engine as a Ray Serve replica: the only module of the engine that imports Ray.

The constructor returns when the model is loaded and raises when it cannot be, so that Serve's state is the truth:
a constructor that returns early makes Serve replace good replicas by ones that cannot answer yet.
"""

import traceback
from typing import Any

import msgspec
from ray import serve

from cotenant_serving.contract import EngineArgs
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.own_log import take_over_streams
from cotenant_serving.engine.process import EngineProcess

STOP_RESERVE_S = 10.0
"""Part of the shutdown time that is kept for stopping, after requests had the rest to finish."""


@serve.deployment
class EngineReplica:
    """One engine. `args_json` is an `EngineArgs` as JSON; requests go to its own HTTP port, never through Serve."""

    # Serve awaits a constructor that is a coroutine; the type system knows no such thing.
    async def __init__(self, args_json: str) -> None:  # type: ignore[misc]
        import ray.util

        self._process: EngineProcess | None = None
        args = msgspec.json.decode(args_json, type=EngineArgs)
        self._drain_s = args.request_timeout_s
        take_over_streams(args)
        try:
            self._process = process = EngineProcess(args, host=ray.util.get_node_ip_address())
            await process.start()
        except LoadError as error:
            # Serve pickles the exception and shows only generic text; the conductor has the cause already.
            raise RuntimeError(f"{error.reason}: {error.message}") from None
        except Exception:
            traceback.print_exc()  # into the engine's log, where people look
            raise

    def check_health(self) -> None:
        if self._process is not None:
            self._process.check_health()

    async def __del__(self) -> None:
        process, self._process = getattr(self, "_process", None), None
        if process is not None:
            await process.end(self._drain_s)


def deployment_options(args: EngineArgs, *, resources: dict[str, float], num_gpus: float) -> dict[str, Any]:
    """Keyword arguments for `EngineReplica.options(...)`. Pure. `resources` are Ray's, per replica."""
    return {
        "name": args.app,
        "num_replicas": 1,
        "max_ongoing_requests": 1000,
        "ray_actor_options": {"num_cpus": 0.01, "num_gpus": num_gpus, "resources": dict(resources)},
        # Serve kills a replica that takes longer to go: any request that a gateway lets run must end within it.
        "graceful_shutdown_timeout_s": args.request_timeout_s + STOP_RESERVE_S,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": 1,
        "health_check_timeout_s": 10,
        "max_constructor_retry_count": 1,
    }
