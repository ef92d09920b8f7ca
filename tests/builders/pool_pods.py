"""Pods of a pool's RayClusters, and where models are in them."""

from tests.builders.kube import Object
from tests.builders.release import Release

WORKERS = "ray.io/node-type=worker"
HEADS = "ray.io/node-type=head"


def workers(release: Release) -> list[Object]:
    return release.pods(WORKERS)


def heads(release: Release) -> list[Object]:
    return release.pods(HEADS)


def is_ready(pod: Object) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", [])
    )


def containers(pod: Object) -> list[str]:
    return [one["name"] for one in pod["spec"]["containers"]]


def node_of(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))


def group_of(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("ray.io/group", ""))
