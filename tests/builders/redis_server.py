"""A Redis in a cluster, for the state of Ray's heads."""

from tests.builders.kube import Kube
from tests.builders.release import NAMESPACE

NAME = "cotenant-test-redis"
PORT = 6379


def start_redis(kube: Kube, image: str) -> str:
    """host:port of one in the release's namespace, which it goes with. A drain of its node leaves it there.

    It stands for a Redis outside of the cluster: so it belongs to a DaemonSet, of one node.
    """
    labels = {"app": NAME}
    node = next(one for one in kube.objects("Node") if not one["spec"].get("unschedulable"))
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": node["metadata"]["labels"]["kubernetes.io/hostname"]},
        "containers": [{"name": "redis", "image": image, "command": command, "securityContext": security}],
    }
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": labels}
    template = {"metadata": {"labels": labels}, "spec": pod}
    kube.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
    )
    kube.until(
        lambda: kube.get("DaemonSet", NAME, NAMESPACE).get("status", {}).get("numberReady") == 1, "Redis is ready"
    )
    return f"{NAME}.{NAMESPACE}.svc:{PORT}"
