"""What stands in the cluster → the plan, made anew only when something changed. Reads Secrets and facts."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cotenant_cache.facts import ModelFacts
from cotenant_cache.source import HubAccess
from cotenant_operator.cluster_manifests import ClusterManifests, ManifestReader, sources_of
from cotenant_operator.cluster_names import facts_object
from cotenant_operator.facts_book import Facts, FactsBook, Question
from cotenant_operator.hub_secret import missing_hub_secrets, with_missing_secret
from cotenant_operator.kept_facts import PackedFacts, unpack
from cotenant_operator.kinds import MODELS, Key, Object
from cotenant_operator.objects import Manifests, ObjectKey, World
from cotenant_operator.plan import plan
from cotenant_operator.planned import ModelPlan, Plan
from cotenant_operator.pool_hubs import Hub, Sought, hub_of, sought, sought_by
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_operator.spec import GPUPool, ModelDeployment, Tenant

log = logging.getLogger("cotenant.operator")

FIRST_S = 3.0
"""What a new leader's first plan waits for hubs and folders, where nothing was kept."""

Objects = Mapping[Key, Object]


@dataclass(frozen=True, slots=True)
class Planned:
    """One plan, and what it was made from."""

    plan: Plan = field(default_factory=Plan)
    manifests: Manifests = field(default_factory=Manifests)
    problems: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Of objects that are not in `manifests`, because they cannot be used."""
    models: Mapping[str, ModelPlan] = field(default_factory=dict)
    """`namespace/name` → its plan."""
    pools: Mapping[str, GPUPool] = field(default_factory=dict)
    missing_secrets: Mapping[str, str] = field(default_factory=dict)
    """GPUPool → why its worker pods do not get their hub token; of those alone that do not."""
    kept: Mapping[str, bytes] = field(default_factory=dict)
    """GPUPool → what its models are, packed, for a leader that comes later."""


class Planner:
    """`touch` says that something changed; the next `planned` looks at all of it."""

    def __init__(
        self,
        *,
        namespace: str,
        objects: Callable[[], tuple[Objects, Objects, Objects]],
        secrets: SecretsByName,
        always: tuple[str, ...],
        facts: FactsBook,
        kept: Callable[[], Objects],
    ) -> None:
        """`objects` gives models, tenants and pools; `always` are Secrets that are read whatever tenants name; `kept`
        gives the ConfigMaps with the facts that the last leader had.
        """
        self._objects, self._secrets, self._always, self._facts = objects, secrets, always, facts
        self._kept, self._packed = kept, PackedFacts()
        self._namespace, self._reader = namespace, ManifestReader(namespace)
        self._turn = asyncio.Lock()
        self._version, self._made = 1, 0
        self._planned = Planned()
        self._begins = False

    def begin(self) -> None:
        """A term as the leader begins: the next plan goes on from what the last leader knew."""
        self._begins = True
        self.touch()

    def touch(self) -> None:
        self._version += 1

    @property
    def troubled(self) -> bool:
        """Files of a model could not be read and are to be tried again: touch it, and plan anew."""
        return self._facts.troubled

    async def planned(self) -> Planned:
        """Raises ClusterError when a Secret that was never read cannot be read now."""
        async with self._turn:
            if self._made == self._version:
                return self._planned
            version = self._version
            models, tenants, pools = self._objects()
            names = secret_names(self._reader.tenants(tenants), self._reader.pools(pools))
            await self._secrets.want({*self._always, *names})
            found = [secret for name in sorted(names) if (secret := self._secrets.get(name)) is not None]
            read = self._reader.read(models=models, tenants=tenants, pools=pools, secrets=found)
            if self._begins:
                await self._recall(read.manifests, models)
            self._planned = self._plan(read, models)
            self._made = version
            return self._planned

    async def _recall(self, manifests: Manifests, models: Objects) -> None:
        """What was not kept is given a moment: a conductor that is told of a model without sizes cannot wake it."""
        questions = self._questions(manifests, models)
        found: dict[Sought, ModelFacts] = {}
        for pool in manifests.pools:
            hub = hub_of(pool)
            for source, facts in self._read_kept(pool.metadata.name, hub).items():
                question = questions.get((source, hub))
                if question is not None and question.source in (source, facts.source):
                    found[source, hub] = facts
        self._facts.recall(found)
        self._begins = False
        self._facts.of(questions)
        await self._facts.answered(FIRST_S)

    def _read_kept(self, pool: str, hub: Hub) -> dict[str, ModelFacts]:
        name = facts_object(pool)
        item = self._kept().get((self._namespace, name))
        try:
            return unpack(item, hub) if item is not None else {}
        except ValueError as problem:
            log.warning("ConfigMap %s cannot be read, hubs are asked again: %s", name, problem)
            return {}

    def _plan(self, read: ClusterManifests, models: Objects) -> Planned:
        missing = missing_hub_secrets(read.manifests)
        facts = facts_of_pools(read.manifests, self._facts.of(self._questions(read.manifests, models)))
        world = World(
            read.manifests,
            of_pools={name: with_missing_secret(said, missing.get(name, "")) for name, said in facts.items()},
        )
        problems = dict(read.problems)
        try:
            made = plan(world, {})
        except Exception:
            # Whatever is wrong with one object, the others are planned.
            world, poison = without_poison(world)
            problems |= poison
            made = plan(world, {})
        return Planned(
            made,
            world.manifests,
            problems,
            {model.name: model for model in made.models},
            {pool.metadata.name: pool for pool in world.manifests.pools},
            missing,
            self._packed.of(world.manifests.pools, facts),
        )

    def _questions(self, manifests: Manifests, models: Objects) -> dict[Sought, Question]:
        """Each pool asks its own hub with its own token, also where another one has the answer already."""
        pools = {pool.metadata.name: pool for pool in manifests.pools}
        return {
            wanted: Question(sources_of(models, named)[wanted[0]], self._access(pool))
            for wanted, (pool, named) in sought_by(manifests.models, pools).items()
        }

    def _access(self, pool: GPUPool) -> HubAccess:
        hub = pool.spec.cache.hub
        token = self._secrets.value(hub.secret_ref.name, hub.secret_ref.key) if hub.secret_ref else ""
        return HubAccess(hub.endpoint, token)


def facts_of_pools(manifests: Manifests, known: Mapping[Sought, Facts]) -> dict[str, dict[str, Facts]]:
    """GPUPool → `spec.model` → what is known to this pool."""
    pools = {pool.metadata.name: pool for pool in manifests.pools}
    found: dict[str, dict[str, Facts]] = {name: {} for name in pools}
    for model in manifests.models:
        pool, source = pools.get(model.spec.pool), model.spec.model
        if pool is not None and source is not None and (said := known.get(sought(source, pool))) is not None:
            found[pool.metadata.name][source] = said
    return found


def without_poison(world: World) -> tuple[World, dict[ObjectKey, str]]:
    """The world without models that no plan can be made with, each tried alone, and what is wrong with them."""
    good: list[ModelDeployment] = []
    problems: dict[ObjectKey, str] = {}
    for model in world.manifests.models:
        try:
            plan(replace(world, manifests=replace(world.manifests, models=(model,))), {})
            good.append(model)
        except Exception as error:
            log.exception("%s cannot be planned; it is left out", model.full_name)
            key = (MODELS.kind, model.metadata.namespace, model.metadata.name)
            problems[key] = f"spec: cannot be planned ({type(error).__name__}); report this, with the operator's log"
    return replace(world, manifests=replace(world.manifests, models=tuple(good))), problems


def secret_names(tenants: tuple[Tenant, ...], pools: tuple[GPUPool, ...]) -> frozenset[str]:
    """Secrets that the objects refer to, and that the operator itself must read."""
    keys = {key.secret_ref.name for tenant in tenants for key in tenant.spec.keys}
    hubs = {pool.spec.cache.hub.secret_ref.name for pool in pools if pool.spec.cache.hub.secret_ref}
    return frozenset(keys | hubs)
