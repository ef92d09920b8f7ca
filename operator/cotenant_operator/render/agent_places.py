"""Worker groups of a pool → the nodes of its agents: each where a pod of any group may run. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cotenant_operator.kube_objects import at, items_at
from cotenant_operator.render.strategic_merge import merge
from cotenant_operator.spec import Worker

Json = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PLACES = ("nodeSelector", "tolerations", "affinity", "$patch")


def agent_places(workers: Sequence[Worker]) -> Json:
    """`tolerations` and `affinity` of the agents' pod, as far as there are any. What groups prefer, and which pods
    they want to be near to, is no matter of agents: there is one on each node."""
    groups = [_group(worker) for worker in workers]
    resources = [worker.device_resource for worker in workers if worker.device_resource]
    places = {"tolerations": _tolerations(groups, resources), "affinity": _affinity(groups)}
    return {name: value for name, value in places.items() if value}


def _group(worker: Worker) -> Json:
    """What its pods have of it, `podTemplate` included."""
    own = {
        "nodeSelector": dict(worker.node_selector),
        "tolerations": list(worker.tolerations),
        "affinity": dict(worker.affinity),
    }
    patch = _map_at(worker.pod_template, "spec")
    return merge(own, {name: patch[name] for name in _PLACES if name in patch})


def _map_at(item: Json, name: str) -> Mapping[str, Any]:
    """A `podTemplate` may have anything there."""
    found = at(item, name)
    return found if isinstance(found, Mapping) else {}


def _tolerations(groups: Iterable[Json], resources: Iterable[str]) -> list[Json]:
    """Those of all groups, and of the taints that keep nodes for pods with a device: agents ask for none. Never for
    a time alone: an agent has no other node to go to, and would be made again where it was."""
    given = [item for group in groups for item in items_at(group, "tolerations")]
    given += [{"key": resource, "operator": "Exists"} for resource in resources]
    return _once({name: value for name, value in item.items() if name != "tolerationSeconds"} for item in given)


def _affinity(groups: Iterable[Json]) -> Json:
    """A term for each group, of which a node needs to meet one; none when a group may be anywhere."""
    by_group = [_terms(group) for group in groups]
    if not all(by_group):
        return {}
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": _once(term for terms in by_group for term in terms)}}}


def _terms(group: Json) -> list[Json]:
    """Its labels and its own terms, all of the former with any of the latter; empty: it may be anywhere."""
    selector = sorted(_map_at(group, "nodeSelector").items())
    labels = [{"key": name, "operator": "In", "values": [value]} for name, value in selector]
    own = items_at(group, "affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms")
    terms = [_term([*labels, *items_at(term, "matchExpressions")], items_at(term, "matchFields")) for term in own]
    # Kubernetes takes an empty term for one that no node meets; here it is as none.
    return [term for term in terms if term] or list(filter(None, [_term(labels, [])]))


def _term(expressions: list[Json], fields: list[Json]) -> Json:
    found = {"matchExpressions": expressions, "matchFields": fields}
    return {name: value for name, value in found.items() if value}


def _once(items: Iterable[Json]) -> list[Json]:
    found: list[Json] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
