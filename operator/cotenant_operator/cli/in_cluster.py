"""Objects of a cluster for the commands: all that the caller may see, one by name, or who can help."""

from typing import TYPE_CHECKING

from cotenant_operator.kinds import MODELS, Kind, Object

if TYPE_CHECKING:
    from cotenant_operator.cli.world import Cluster


def all_of(cluster: "Cluster", kind: Kind) -> list[Object]:
    """Those of the namespace that was asked for, else of all, else (without the right to all) of the context's own.

    Raises ClusterError.
    """
    from cotenant_operator.cluster_errors import NotFoundError
    from cotenant_operator.kube_refusals import MissingRightError
    from cotenant_operator.output import note

    api = cluster.api
    try:
        try:
            return api.list(kind.path(cluster.namespace or ""))
        except MissingRightError:
            if not kind.namespaced or cluster.namespace is not None:
                raise
            found = api.list(kind.path(api.namespace))
            note(f"only those of namespace {api.namespace}: you may not list {kind.plural} in all; -n names another")
            return found
    except NotFoundError:
        raise not_installed(cluster, kind) from None


def model_of(cluster: "Cluster", name: str) -> Object:
    """`name` or `namespace/name` → the ModelDeployment. Raises Failure."""
    from cotenant_operator.cluster_errors import NotFoundError
    from cotenant_operator.kube_objects import full_name
    from cotenant_operator.names import model_named

    namespace, _, bare = name.rpartition("/")
    namespace = namespace or cluster.namespace or ""
    if namespace:
        try:
            return cluster.api.get(MODELS.path(namespace, bare))
        except NotFoundError:
            pass  # the list says whether it is the name or the whole kind, and which names there are
    models = {full_name(model): model for model in all_of(cluster, MODELS)}
    return models[model_named(name, models)]


def not_installed(cluster: "Cluster", kind: Kind) -> Exception:
    from cotenant_operator.failure import Failure

    return Failure(
        f"the cluster of context {cluster.api.context!r} does not know {kind.kind}: cotenant is not installed there. "
        "`cotenant doctor` says what is missing; --context NAME names another cluster, --state DIR this machine"
    )
