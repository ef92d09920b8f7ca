"""The only Ray I/O of the conductor: engines as Serve apps, devices as Ray's custom resources.

Blocking calls; the conductor runs them in a thread. An app is created once and never run again:
`serve.run_many` on a live app would restart its replica.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cotenant_serving.conductor.asked_pods import AskedPods
from cotenant_serving.conductor.observed import App
from cotenant_serving.conductor.world import AppStatus, Device
from cotenant_serving.contract import EngineArgs, WorkerGroup, share_resource

log = logging.getLogger("cotenant.conductor")

NODE_PIN = 0.001
DRAINING_TIMEOUT_S = 10.0

_STATUS: Mapping[str, AppStatus] = {
    "DEPLOYING": "deploying",
    "NOT_STARTED": "deploying",
    "RUNNING": "running",
    "UNHEALTHY": "running",
    "DEPLOY_FAILED": "failed",
    "DELETING": "deleting",
}


class ServeDriver:
    """One Ray driver process. `address`: `host:port` of the GCS. Raises while there is no raylet beside it."""

    def __init__(self, address: str) -> None:
        import ray
        from ray import serve
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # Cython

        self._pods = AskedPods(_ask_for_pod, _take_back, _waits)
        ray.init(
            address=address,
            namespace="serve",
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
        )
        try:
            # No proxies: requests reach engines over HTTP, past Ray.
            serve.start(proxy_location="Disabled")
            # Nothing public tells which nodes are being drained; Serve's own controller asks in this way.
            self._gcs: Any = GcsClient(address=address)
        except BaseException:
            ray.shutdown()
            raise

    def devices(self, groups: Sequence[WorkerGroup]) -> tuple[Device, ...]:
        import ray

        found = []
        leaving = self._gcs.get_draining_nodes(timeout=DRAINING_TIMEOUT_S)
        for node in ray.nodes():
            if node["Alive"]:
                found.extend(_devices_of(node, groups, leaving=node["NodeID"] in leaving))
        return tuple(sorted(found, key=lambda device: device.id))

    def apps(self) -> dict[str, App]:
        from ray import serve

        status: Any = serve.status()
        return {name: _app(view) for name, view in status.applications.items()}

    def start(self, args: EngineArgs, node: str, group: str) -> None:
        from ray import serve

        from cotenant_serving.engine.replica import EngineReplica, deployment_options

        part = _fraction(args.share_bytes, args.device_bytes)
        resources = {f"node:{node}": NODE_PIN, share_resource(group): part}
        options = deployment_options(args, resources=resources, num_gpus=part if args.spec.device == "cuda" else 0.0)
        deployment: Any = EngineReplica  # what the decorator returns, unknown to the type checker
        app = deployment.options(**options).bind(msgspec.json.encode(args).decode())
        serve.run_many(
            [serve.RunTarget(app, name=args.app, route_prefix=None)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )

    def delete(self, app: str) -> None:
        from ray import serve

        serve.delete(app, _blocking=False)

    def ask(self, pods: Mapping[str, int]) -> None:
        """A placement group of a whole device stands for each pod: Ray's autoscaler brings what such a one lacks.

        They are this driver's own, so Ray forgets them with it. One that got its device has done its work and goes at
        once, for it holds the share of the engines to come. (`request_resources` would do nothing at all as long as
        one group of many cannot grow.)
        """
        self._pods.set(pods)


def _ask_for_pod(group: str) -> Any:
    from ray.util import placement_group

    return placement_group([{share_resource(group): 1.0}])


def _take_back(asked: Any) -> None:
    from ray.util import remove_placement_group

    remove_placement_group(asked)


def _waits(asked: Any) -> bool:
    from ray.util import placement_group_table

    return bool(placement_group_table(asked).get("state") == "PENDING")


def _devices_of(node: Mapping[str, Any], groups: Sequence[WorkerGroup], *, leaving: bool) -> list[Device]:
    address = node["NodeManagerAddress"]
    return [
        Device(
            id=f"{address}/{group.name}/{index}",
            group=group.name,
            kind=group.device,
            memory_bytes=group.memory_bytes,
            node=address,
            index=index,
            host=node["NodeManagerHostname"],
            leaving=leaving,
        )
        for group in groups
        for index in range(int(node["Resources"].get(share_resource(group.name), 0)))
    ]


def _app(view: Any) -> App:
    messages = [view.message, *(deployment.message for deployment in view.deployments.values())]
    return App(
        _STATUS.get(str(getattr(view.status, "value", view.status)), "deploying"), "\n".join(filter(None, messages))
    )


def _fraction(share_bytes: int, device_bytes: int) -> float:
    """Ray counts in 1/10,000; rounded down, so that shares that fit in bytes always fit in Ray's books."""
    return max(1, math.floor(share_bytes / device_bytes * 10_000)) / 10_000
