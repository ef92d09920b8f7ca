"""`cotenant plan -f FILE` against a cluster: what applying the files would change. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.cli.in_cluster import all_of
from cotenant_operator.cluster_manifests import ManifestReader
from cotenant_operator.cluster_manifests import sources_of as pinned_sources
from cotenant_operator.cluster_plan import Change, changes, concerned, in_namespace, laid_over
from cotenant_operator.kinds import MODELS, POOLS, TENANTS, Key, Object, key_of
from cotenant_operator.kube_refusals import MissingRightError
from cotenant_operator.manifests import load
from cotenant_operator.model_facts import known_facts
from cotenant_operator.objects import SYSTEM_NAMESPACE, Manifests, World
from cotenant_operator.plan import plan
from cotenant_operator.planned import Plan
from cotenant_operator.world import read_facts, sources_of

if TYPE_CHECKING:
    from cotenant_operator.cli.world import Cluster


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    changes: tuple[Change, ...]
    plan: Plan
    """Of the models that the files concern."""
    notes: tuple[str, ...]
    """What could not be seen, and what that means."""


def plan_for_cluster(
    cluster: "Cluster", files: Sequence[Path], namespace: str | None, cache_dir: Path
) -> ClusterPlan:
    """`namespace` is for models of the files that name none. Raises Failure."""
    given = in_namespace(load(files), namespace or cluster.api.namespace)
    models = {key_of(item): item for item in all_of(replace(cluster, namespace=None), MODELS)}
    pools = {key_of(item): item for item in all_of(cluster, POOLS)}
    tenants, notes = _tenants(cluster)
    there = ManifestReader(SYSTEM_NAMESPACE).read(models=models, tenants=tenants or {}, pools=pools, secrets=())
    before, after = laid_over(there.manifests, Manifests()), laid_over(there.manifests, given)
    facts, unread = _facts(given, after, models, cache_dir)
    plans = plan(World(before, facts), {}), plan(World(after, facts), {})
    found = concerned(given, *plans)
    if tenants is None:
        found = replace(found, tenants=(), warnings=(), errors=())
    return ClusterPlan(tuple(changes(given, there.manifests, *plans)), found, (*notes, *unread))


def _tenants(cluster: "Cluster") -> tuple[dict[Key, Object] | None, tuple[str, ...]]:
    """None, with a note, for whoever may not see them: what fits does not depend on them."""
    try:
        return {key_of(item): item for item in all_of(cluster, TENANTS)}, ()
    except MissingRightError as error:
        return None, (f"who would see the models is not known: {error}",)


def _facts(
    given: Manifests, after: Manifests, models: Mapping[Key, Object], cache_dir: Path
) -> tuple[dict[str, ModelFacts | CacheError], tuple[str, ...]]:
    """Of the models of the files, and of all models of a pool that is in the files; and notes on what is not here."""
    edited = {pool.metadata.name for pool in given.pools}
    names = {model.full_name for model in given.models}
    wanted = [model for model in after.models if model.full_name in names or model.spec.pool in edited]
    pinned = pinned_sources(models, wanted)
    here = {source: at for source, at in pinned.items() if not _elsewhere(source)}
    read = read_facts(list(here.values()), lambda at: known_facts(at, str(cache_dir)))
    notes = tuple(
        f"{source} is not on this machine: the operator reads it, and says then what it needs"
        for source in sources_of(wanted)
        if source not in here
    )
    return {source: read[at] for source, at in here.items() if at in read}, notes


def _elsewhere(source: str) -> bool:
    return source.startswith("file://") and not Path(source.removeprefix("file://")).is_dir()
