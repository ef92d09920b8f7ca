"""The state of a cluster in a page: what a test prints when it has waited in vain."""

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.builders.kube import Kube, Object

LINES = 25
"""Of each log."""


def story(kube: "Kube") -> str:
    parts = [
        got(kube, kinds, "-o", "wide")
        for kinds in ("nodes", "gpupools,tenants,modeldeployments", "rayclusters", "deployments,pods")
    ]
    with contextlib.suppress(Exception):
        parts += [
            line for kind in ("GPUPool", "ModelDeployment", "Tenant") for line in conditions(kube.objects(kind))
        ]
    parts.append(got(kube, "events", "--sort-by=.lastTimestamp")[-6000:])
    with contextlib.suppress(Exception):
        parts += [log for pod in kube.objects("Pod") if ours(pod) for log in logs(kube, pod)]
    return "\n".join(parts)


def got(kube: "Kube", kinds: str, *options: str) -> str:
    """An API server that is silent ends a story soon: the test has something to say itself."""
    return kube.kubectl("get", kinds, "--all-namespaces", "--request-timeout=15s", *options, check=False)


def conditions(objects: "list[Object]") -> list[str]:
    return [
        f"{one['kind']} {one['metadata']['name']}: {item['type']}={item['status']} {item['reason']}: "
        f"{item.get('message', '')}"
        for one in objects
        for item in one.get("status", {}).get("conditions", [])
    ]


def ours(pod: "Object") -> bool:
    labels = pod["metadata"].get("labels", {})
    return "cotenant" in labels.get("app.kubernetes.io/name", "") or "ray.io/cluster" in labels


def logs(kube: "Kube", pod: "Object") -> list[str]:
    """The ends of its containers' logs, and of what ran before them where they were restarted."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    found = []
    for status in pod.get("status", {}).get("containerStatuses", []):
        asked = [["--previous"]] if status["restartCount"] else []
        for more in [[], *asked]:
            said = kube.kubectl(
                "logs", name, "-n", namespace, "-c", status["name"], f"--tail={LINES}", *more, check=False
            )
            found.append(f"--- {name} {status['name']} {' '.join(more)}\n{said}")
    return found
