"""Looking at a cluster for `cotenant doctor`. Reads only, and of Secrets their names only."""

from collections.abc import Callable, Iterable
from typing import Any

from cotenant_operator.cluster_errors import NotFoundError
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot, Seen
from cotenant_operator.doctor.install_checks import CRDS, KUBERAY_CRD, NEEDED_SECRETS
from cotenant_operator.kinds import CORE_EVENTS, LEASES, NODES, PODS, POOLS, SECRETS, Kind, Object
from cotenant_operator.kube_reading import KubeApi
from cotenant_operator.kube_refusals import MissingRightError

_DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
_CRDS = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
_KUBERAY = "app.kubernetes.io/name in (kuberay-operator, kuberay)"
"""By KubeRay's Helm chart; by its kustomize folder."""


def look_at_cluster(api: KubeApi, *, namespace: str, now_s: float, wanted_crds: Iterable[Object]) -> ClusterSnapshot:
    """Raises ClusterError when the cluster does not answer at all."""
    version = str(api.get("/version").get("gitVersion") or "")
    return ClusterSnapshot(
        context=api.context,
        server=api.server,
        version=version,
        namespace=namespace,
        now_s=now_s,
        crds=_each(api.get, _CRDS.path(), (*CRDS, KUBERAY_CRD)),
        wanted_crds=tuple(wanted_crds),
        kuberay=_all(api, _DEPLOYMENTS.path(), labelSelector=_KUBERAY),
        deployments=_all(api, _DEPLOYMENTS.path(namespace)),
        pods=_all(api, PODS.path(namespace)),
        leases=_all(api, LEASES.path(namespace)),
        secrets=_each(api.metadata, SECRETS.path(namespace), NEEDED_SECRETS),
        events=_all(api, CORE_EVENTS.path(namespace)),
        nodes=_all(api, NODES.path()),
        pools=_all(api, POOLS.path()),
    )


def _all(api: KubeApi, path: str, **query: str) -> Seen:
    try:
        return Seen(tuple(api.list(path, query)))
    except MissingRightError as error:
        return Seen(missing_right=error.right)
    except NotFoundError:
        return Seen(absent=True)


def _each(get: Callable[[str], dict[str, Any]], path: str, names: Iterable[str]) -> Seen:
    """Those of these names that there are: a list might hold much more than is needed."""
    found: list[Object] = []
    for name in names:
        try:
            found.append(get(f"{path}/{name}"))
        except MissingRightError as error:
            return Seen(missing_right=error.right)
        except NotFoundError:
            continue
    return Seen(tuple(found))
