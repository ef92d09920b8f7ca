"""Looks around, and gives a command its world: a state directory of this machine, or a Kubernetes cluster."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_operator.cli.options import default_state

if TYPE_CHECKING:
    from cotenant_operator.kube_reading import KubeApi
    from cotenant_operator.which_world import Around, Asked, InCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    api: "KubeApi"
    namespace: str | None
    """The one that was asked for; None: all that may be seen."""


def find_world(
    state: Path | None, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> "Path | Cluster":
    """The state directory, or the cluster. Says on stderr which where it could be either. Raises Failure."""
    from cotenant_operator.output import note
    from cotenant_operator.which_world import Asked, ThisMachine, choose_world

    asked = Asked(state=state, kubeconfig=kubeconfig, context=context, namespace=namespace)
    around = look_around(asked)
    chosen = choose_world(asked, around)
    if isinstance(chosen, ThisMachine):
        if chosen.note:
            note(chosen.note)
        return chosen.state
    return _connected(chosen, around)


def look_around(asked: "Asked") -> "Around":
    """Cheap: files only, and those only that can decide."""
    from cotenant_operator.control import ControlError, running_up
    from cotenant_operator.which_world import Around

    where = default_state()
    runs = False
    if asked.state is None and not asked.names_cluster:
        try:
            running_up(where)
            runs = True
        except ControlError:
            pass
    given = os.environ.get("KUBECONFIG")
    files = given.split(os.pathsep) if given else [str(Path.home() / ".kube" / "config")]
    found = tuple(Path(file).expanduser() for file in files if file and Path(file).expanduser().is_file())
    named = bool(os.environ.get("COTENANT_STATE"))
    return Around(default_state=where, state_is_named=named, up_runs=runs, kubeconfigs=found)


def _connected(chosen: "InCluster", around: "Around") -> "Path | Cluster":
    """The cluster; this machine instead when nobody has named the cluster and it has no cotenant, or no answer."""
    from cotenant_operator.cluster_errors import ClusterError, NotFoundError
    from cotenant_operator.kinds import MODELS
    from cotenant_operator.kube_reading import KubeApi
    from cotenant_operator.output import note

    try:
        api = KubeApi.of_kubeconfig(chosen.kubeconfigs, chosen.context)
        if not chosen.named:
            api.get(f"/apis/{MODELS.api_version}")
    except ClusterError as error:
        if chosen.named:
            raise
        lacks = "has no cotenant" if isinstance(error, NotFoundError) else f"is of no use: {error}"
        note(f"the cluster of your kubeconfig {lacks}, so this is about this machine")
        return around.default_state
    if not chosen.named and around.default_state.is_dir():  # else nobody would think of `up`
        note(f"no `cotenant up` runs here: this is the cluster of context {api.context!r}")
    return Cluster(api=api, namespace=chosen.namespace)
