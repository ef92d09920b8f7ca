"""The leader's work: one round for each pool, one for gateways and tenants, one for what is made once, one for usage.

Each round is level-triggered: it reads the caches, has a pure pass decide, and carries out the difference.
"""

import asyncio
import logging
import secrets as random_tokens
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from cotenant_operator.actions import Put
from cotenant_operator.caches import Caches, pool_named
from cotenant_operator.carry_out import CarryOut
from cotenant_operator.cluster_errors import ConflictError, NotFoundError
from cotenant_operator.cluster_names import cache_objects, conductor_url, facts_object
from cotenant_operator.conductor_watch import ConductorWatch
from cotenant_operator.conductors import ConductorError
from cotenant_operator.facts_book import AGAIN_S
from cotenant_operator.first_objects import MARK, default_pool, gateway_secret, pool_mark, tokens_secret
from cotenant_operator.gateway_pass import (
    GatewayInput,
    changed_pools,
    fitting_config,
    newer,
    said_left_out,
    tenant_statuses,
)
from cotenant_operator.gateway_room import ROOM, Fitted, Room
from cotenant_operator.gateway_secret import GatewaySecret
from cotenant_operator.kinds import CONFIG_MAPS, MODELS, POOLS, SECRETS, Key, Object
from cotenant_operator.kube_objects import labels_of
from cotenant_operator.lease import LeaderWrites
from cotenant_operator.operator_metrics import OperatorMetrics
from cotenant_operator.operator_settings import (
    CONTROL_TOKEN,
    POOL_TOKEN,
    TOKENS_SECRET,
    OperatorSettings,
)
from cotenant_operator.planned import PoolPlan
from cotenant_operator.planner import Planned, Planner
from cotenant_operator.pool_pass import Memory, PoolInput, decide
from cotenant_operator.pool_world import (
    CLUSTER_LABEL,
    PoolWorld,
    agent_pods,
    node_resources,
    pool_of,
    ready_endpoints,
)
from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.rolling import plan_roll
from cotenant_operator.rounds import RoundFailedError, Rounds
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_operator.usage_retention import UsageRetention
from cotenant_serving.contract_gateway import GatewayConfig

log = logging.getLogger("cotenant.operator")

GATEWAYS, FIRST, USAGE, POOL = "gateways", "first objects", "usage", "pool "


class Reconciler:
    """From becoming the leader to losing that: make a new one for each term, and `close` it."""

    def __init__(
        self,
        *,
        settings: OperatorSettings,
        caches: Caches,
        planner: Planner,
        secrets: SecretsByName,
        conductors: ConductorWatch,
        writes: LeaderWrites,
        carry_out: CarryOut,
        gateway_secret: GatewaySecret,
        published: PublishedConfig,
        usage: UsageRetention,
        metrics: OperatorMetrics,
        room: Room = ROOM,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._caches, self._planner, self._secrets = settings, caches, planner, secrets
        self._conductors, self._writes, self._carry_out = conductors, writes, carry_out
        self._standing, self._published, self._metrics, self._wall = gateway_secret, published, metrics, wall
        self._room, self._usage = room, usage
        timeouts = settings.timeouts
        self._rounds = Rounds(self._round, debounce_s=timeouts.debounce, resync_s=timeouts.resync)
        self._routes: dict[str, tuple[str, ...]] = {}
        self._planned = Planned()
        self._memories: dict[str, Memory] = {}
        self._refused: dict[str, str] = {}
        self._left_out: frozenset[str] = frozenset()
        """Models that the gateways' configuration has no room for."""
        self._counts_left_out = (0, 0)
        """Models and tenants, as logged last."""

    def begin(self) -> None:
        self._left_out = said_left_out(self._caches.models.objects)
        for key in (FIRST, GATEWAYS, USAGE):
            self._rounds.mark(key)
        self.every_pool_changed()

    async def close(self) -> None:
        await self._rounds.close()
        await self._conductors.close()

    def pool_changed(self, name: str) -> None:
        self._rounds.mark(POOL + name)

    def plan_changed(self) -> None:
        self._planner.touch()
        self._rounds.mark(GATEWAYS)

    def gateways_changed(self) -> None:
        self._rounds.mark(GATEWAYS)

    def first_changed(self) -> None:
        self._rounds.mark(FIRST)

    def conductor_changed(self, cluster: str) -> None:
        if owner := self._owner(cluster):
            self.pool_changed(owner)

    def every_pool_changed(self) -> None:
        for name in self._pool_names():
            self.pool_changed(name)

    def _pool_names(self) -> set[str]:
        pools = {name for _, name in self._caches.pools.objects}
        return pools | {pool_named(item) for item in self._caches.models.objects.values()}

    async def _round(self, key: str) -> float | None:
        began_s = time.perf_counter()
        try:
            if key == FIRST:
                return await self._first()
            if key == USAGE:
                await self._usage.look()
                return None
            if key == GATEWAYS and self._planner.troubled:
                self._planner.touch()
            planned = await self._planner.planned()
            self._replanned(planned)
            return await (self._gateways(planned) if key == GATEWAYS else self._pool(key.removeprefix(POOL), planned))
        finally:
            self._metrics.round_ended(key.partition(" ")[0], time.perf_counter() - began_s)

    def _replanned(self, planned: Planned) -> None:
        """A change of one object may change what is planned for models of other pools."""
        if planned is not self._planned:
            before, self._planned = self._planned, planned
            for name in changed_pools(before, planned, self._pool_names()):
                self.pool_changed(name)

    async def _pool(self, name: str, planned: Planned) -> float | None:
        given = self._pool_input(name, planned)
        actions = decide(given, plan_roll, self._memories.setdefault(name, {}))
        for fault in actions.faults:
            log.error("pool %s: %s", name, fault, exc_info=fault)
        self._conductors.follow(lambda cluster: self._owner(cluster) in (name, ""), actions.follow)
        if actions.routed is not None and actions.routed != self._routes.get(name):
            self._routes[name] = actions.routed
            self._rounds.mark(GATEWAYS)
        fine = await self._carry_out.events(actions.events)
        written, self._refused[name] = await self._carry_out.write(actions.writes)
        fine &= written
        fine &= all(await asyncio.gather(*(self._put(put) for put in actions.puts)))
        fine &= await self._carry_out.statuses(actions.statuses)
        self._metrics.pool(name, given, actions)
        if not fine:
            raise RoundFailedError(f"pool {name}: not all could be written, see above")
        if given.pool is None and given.pool_object is None and not given.objects:
            self._routes.pop(name, None)
            self._memories.pop(name, None)
            self._refused.pop(name, None)
            self._metrics.forget_pool(name)
            self._rounds.forget(POOL + name)
        return actions.again_s

    def _pool_input(self, name: str, planned: Planned) -> PoolInput:
        caches = self._caches
        pool_object = caches.pools.objects.get(("", name))
        if pool_object is not None and pool_object["metadata"].get("deletionTimestamp"):
            pool_object = None
        objects = {key: item for key, item in caches.models.objects.items() if pool_named(item) == name}
        models = {
            full: replace(model, left_out=True) if full in self._left_out else model
            for full, model in planned.models.items()
            if model.pool == name
        }
        groups = next((item.groups for item in planned.plan.pools if item.name == name), ())
        return PoolInput(
            name=name,
            pool=planned.pools.get(name),
            pool_object=pool_object,
            pool_problem=planned.problems.get((POOLS.kind, "", name), ""),
            missing_secret=planned.missing_secrets.get(name, ""),
            facts=planned.kept.get(name, b""),
            models=models,
            objects=objects,
            problems={key: said for key in objects if (said := planned.problems.get((MODELS.kind, *key)))},
            plan=PoolPlan(name, groups, tuple(models.values())),
            world=self._pool_world(name),
            settings=self._settings,
        )

    def _pool_world(self, name: str) -> PoolWorld:
        caches, namespace = self._caches, self._settings.namespace
        clusters = [item for item in caches.ray_clusters.objects.values() if pool_of(item) == name]
        clusters.sort(key=lambda item: (item["metadata"].get("creationTimestamp", ""), item["metadata"]["name"]))
        names = [item["metadata"]["name"] for item in clusters]
        pods: dict[str, list[Object]] = {cluster: [] for cluster in names}
        for pod in caches.pods.objects.values():
            if (cluster := labels_of(pod).get(CLUSTER_LABEL, "")) in pods:
                pods[cluster].append(pod)
        nodes = caches.nodes
        return PoolWorld(
            clusters=tuple(clusters),
            services={key[1]: item for key, item in caches.services.objects.items() if pool_of(item) == name},
            policies={key[1]: item for key, item in caches.policies.objects.items() if pool_of(item) == name},
            preload=caches.config_maps.objects.get((namespace, cache_objects(name))),
            facts=caches.config_maps.objects.get((namespace, facts_object(name))),
            agent=_first_of(caches.agents.objects.values(), name),
            agent_pods=agent_pods(caches.pods.objects.values(), name),
            pods={cluster: tuple(found) for cluster, found in pods.items()},
            conductors={cluster: self._conductors.seen(cluster) for cluster in names},
            kuberay_served=not caches.ray_clusters.absent,
            refused=self._refused.get(name, ""),
            routed=self._routed(names),
            node_resources=node_resources(nodes.objects.values()) if nodes.synced and not nodes.problem else None,
            now_s=self._wall(),
        )

    def _routed(self, clusters: list[str]) -> frozenset[str] | None:
        config = self._in_secret()
        if config is None:
            return None
        namespace = self._settings.namespace
        return frozenset(name for name in clusters if conductor_url(name, namespace) in config.conductors)

    def _owner(self, cluster: str) -> str:
        key: Key = (self._settings.namespace, cluster)
        item = self._caches.ray_clusters.objects.get(key)
        return pool_of(item) if item is not None else ""

    async def _put(self, put: Put) -> bool:
        generation = max(int(self._wall() * 1000), put.desired.generation)
        url = conductor_url(put.cluster, self._settings.namespace)
        try:
            await self._conductors.put(put.cluster, url, msgspec.structs.replace(put.desired, generation=generation))
        except ConductorError as error:
            log.warning("conductor of %s was not told: %s", put.cluster, error)
            return False
        log.info("told the conductor of %s: generation %d", put.cluster, generation)
        return True

    async def _gateways(self, planned: Planned) -> float | None:
        tenants = dict(self._caches.tenants.objects)  # as planned: they may be edited while this fits and writes
        given = GatewayInput(
            planned=planned,
            routes={name: self._routes.get(name) for name in self._pool_names()},
            gateways=ready_endpoints(self._caches.endpoint_slices.objects.values()),
            published=self._in_secret(),
            now_s=self._wall(),
        )
        fitting = await asyncio.to_thread(fitting_config, given, self._room)
        config = newer(fitting.config, given.published, given.now_s)
        if config is not None:
            await self._publish(config)
        self._fitted(fitting)
        statuses = tenant_statuses(planned, tenants, self._wall(), fitting)
        if not await self._carry_out.statuses(statuses):
            raise RoundFailedError("tenants: not every status could be written, see above")
        return AGAIN_S if self._planner.troubled else None

    def _fitted(self, fitting: Fitted) -> None:
        self._metrics.gateway_config(fitting.packed_bytes, len(fitting.models), len(fitting.tenants))
        if (left_out := (len(fitting.models), len(fitting.tenants))) != self._counts_left_out:
            self._counts_left_out = left_out
            if any(left_out):
                log.error(
                    "the gateways' configuration is full; left out, the youngest first: models %d, tenants %d",
                    *left_out,
                )
        if fitting.models != self._left_out:
            self._left_out = fitting.models
            self.every_pool_changed()

    def _in_secret(self) -> GatewayConfig | None:
        """What stands in the Secret, with a generation that is not below any that was handed out."""
        config = self._standing.config()
        if config is None:
            handed_out = self._published.config
            # Nothing there, or nothing readable: written anew, above what gateways may have.
            return msgspec.structs.replace(handed_out, pool_token_file="") if handed_out else None
        return msgspec.structs.replace(config, generation=max(config.generation, self._published.generation))

    async def _publish(self, config: GatewayConfig) -> None:
        raw = msgspec.json.encode(config)
        before = self._published.config
        said = await self._writes.apply(SECRETS, gateway_secret(self._settings.namespace, raw))
        self._published.offer(raw)
        self._secrets.put(msgspec.json.decode(said))
        log.info("published generation %d to gateways", config.generation)
        if before is None or before.conductors != config.conductors:
            self.every_pool_changed()

    async def _first(self) -> float | None:
        """Tokens when there are none; a default pool when there is none and never was one."""
        await self._tokens()
        wanted = self._settings.default_pool
        if wanted.enabled and self._caches.pools.synced and not self._caches.pools.absent:
            await self._default_pool()
        return None

    async def _tokens(self) -> None:
        namespace = self._settings.namespace
        if all(self._secrets.value(TOKENS_SECRET, key) for key in (POOL_TOKEN, CONTROL_TOKEN)):
            return
        try:
            made = tokens_secret(namespace, random_tokens.token_urlsafe(32), random_tokens.token_urlsafe(32))
            self._secrets.put(await self._writes.create(SECRETS, made, namespace))
            log.info("made the tokens of the programs: Secret %s", TOKENS_SECRET)
        except ConflictError:
            await self._secrets.look()
            if not all(self._secrets.value(TOKENS_SECRET, key) for key in (POOL_TOKEN, CONTROL_TOKEN)):
                raise RoundFailedError(f"Secret {TOKENS_SECRET} lacks a token; delete it, it is made anew") from None

    async def _default_pool(self) -> None:
        namespace = self._settings.namespace
        try:
            await self._writes.get(CONFIG_MAPS, MARK, namespace)
            return
        except NotFoundError:
            pass
        if not self._caches.pools.objects:
            try:
                await self._writes.create(POOLS, default_pool(self._settings.default_pool))
                log.info("made GPUPool default, because there is none")
            except ConflictError:
                pass
        try:
            await self._writes.create(CONFIG_MAPS, pool_mark(namespace), namespace)
        except ConflictError:
            pass


def _first_of(items: Iterable[Object], pool: str) -> Object | None:
    return next((item for item in items if pool_of(item) == pool), None)
