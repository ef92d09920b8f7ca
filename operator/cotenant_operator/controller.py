"""`cotenant operator`: the core's shell in a cluster.

watch caches ─▶ rounds (leader only): plan ─▶ passes ─▶ RayClusters, conductors, status, Secret of the gateways
             └▶ HTTP API (every replica): configuration of gateways, usage, health, metrics
"""

import asyncio
import gc
import logging
import os
import secrets as random_names
import signal
import socket
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import aiohttp

from cotenant_operator.caches import Caches
from cotenant_operator.carry_out import CarryOut
from cotenant_operator.cluster import Cluster, NoClusterError, connect
from cotenant_operator.cluster_errors import ClusterError
from cotenant_operator.conductor_watch import ConductorWatch
from cotenant_operator.conductors import ConductorClient
from cotenant_operator.facts_book import Facts, FactsBook, Question
from cotenant_operator.gateway_secret import GatewaySecret
from cotenant_operator.kinds import Kind, Object
from cotenant_operator.lease import Election, LeaderWrites
from cotenant_operator.model_facts import known_facts
from cotenant_operator.operator_metrics import OperatorMetrics
from cotenant_operator.operator_server import OperatorApi, serve
from cotenant_operator.operator_settings import (
    CONTROL_TOKEN,
    GATEWAY_SECRET,
    POOL_TOKEN,
    TOKENS_SECRET,
    OperatorSettings,
)
from cotenant_operator.planner import Planner
from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.reconciler import Reconciler
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_operator.usage_retention import UsageRetention
from cotenant_operator.usage_store import UsageStore
from cotenant_operator.watching import pause_s
from cotenant_serving.tokens import shown

log = logging.getLogger("cotenant.operator")

LEASE = "cotenant-operator"
LOOK_S = 0.1
ALWAYS = (TOKENS_SECRET, GATEWAY_SECRET)


class Operator:
    """One replica. Everything that talks to the API server is here or below; nothing is global."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession, settings: OperatorSettings) -> None:
        self._settings, self._cluster = settings, cluster
        namespace, timeouts = settings.namespace, settings.timeouts
        identity = f"{socket.gethostname()}_{random_names.token_hex(4)}"
        self.election = Election(
            cluster, namespace=namespace, name=LEASE, identity=identity, changed=self._leading_changed
        )
        self._leading = asyncio.Event()
        self._term: Reconciler | None = None
        self._deaf = _Deaf()
        self.caches = Caches(cluster, settings, self._concerned)
        self._secrets = SecretsByName(cluster, namespace, self._secret_changed)
        self._gateway_secret = GatewaySecret(self._secrets)
        self._facts = FactsBook(partial(_facts, settings.cache_dir), self._facts_came)
        self._planner = Planner(
            namespace=namespace,
            objects=lambda: (self.caches.models.objects, self.caches.tenants.objects, self.caches.pools.objects),
            secrets=self._secrets,
            always=ALWAYS,
            facts=self._facts,
            kept=lambda: self.caches.config_maps.objects,
        )
        self._writes = LeaderWrites(cluster, self.election.leads)
        client = ConductorClient(session, lambda: shown(self._token(CONTROL_TOKEN)), timeouts.conductor)
        self._conductors = ConductorWatch(
            client, self._conductor_changed, every_s=timeouts.conductor_poll, fence=self._writes.check
        )
        self._carry_out = CarryOut(self._writes, instance=identity, written=self._written)
        self._published = PublishedConfig()
        self.metrics = OperatorMetrics(
            leads=self.election.leads, watched=self.caches.all, calls=lambda: cluster.calls
        )
        usage = UsageStore(cluster, namespace)
        self.api = OperatorApi(
            published=self._published,
            pool_token=lambda: self._token(POOL_TOKEN),
            ready=self.not_ready,
            metrics=self.metrics.text,
            add_usage=usage.add,
        )

    async def run(self, host: str, port: int) -> None:
        """Until it is cancelled. Gives the Lease back at the end, after the last write."""
        tasks = [
            asyncio.create_task(job, name=name)
            for name, job in {
                "caches": self.caches.run(),
                "secrets": self._follow_secrets(),
                "election": self.election.run(),
                "terms": self._terms(),
                "server": serve(self.api, host, port),
            }.items()
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_term()
            await self.election.release()

    def not_ready(self) -> str:
        """Why this replica cannot do its work; empty when it can, leading or not."""
        return "; ".join(self.caches.missing)

    async def _terms(self) -> None:
        """Between becoming the leader and losing that, one reconciler."""
        while True:
            await self._leading.wait()
            while self.election.leads() and self.caches.missing:
                await asyncio.sleep(LOOK_S)
            if self.election.leads():
                self._planner.begin()
                self._term = Reconciler(
                    settings=self._settings,
                    caches=self.caches,
                    planner=self._planner,
                    secrets=self._secrets,
                    conductors=self._conductors,
                    writes=self._writes,
                    carry_out=self._carry_out,
                    gateway_secret=self._gateway_secret,
                    published=self._published,
                    usage=UsageRetention(
                        self._cluster,
                        self._writes,
                        self._settings.namespace,
                        self._settings.usage_retention_days,
                    ),
                    metrics=self.metrics,
                )
                self._term.begin()
            while self.election.leads():
                await asyncio.sleep(LOOK_S)
            await self._end_term()
            self._leading.clear()
            if self.election.leads():
                self._leading.set()

    async def _end_term(self) -> None:
        term, self._term = self._term, None
        if term is not None:
            await term.close()
            self._secrets.want_only(ALWAYS)

    async def _follow_secrets(self) -> None:
        """The Secrets of every replica, from the start; the leader's planner adds those of tenants."""
        failures = 0
        while True:
            try:
                await self._secrets.want(ALWAYS)
                break
            except ClusterError as error:
                failures += 1
                log.warning("secrets: %s", error)
                await asyncio.sleep(pause_s(failures, error.retry_after_s))
        self._secret_changed(GATEWAY_SECRET)
        await self._secrets.run()

    def _concerned(self) -> "Reconciler | _Deaf":
        return self._term or self._deaf

    def _leading_changed(self, leads: bool) -> None:
        if leads:
            self._leading.set()

    def _secret_changed(self, name: str) -> None:
        if name == GATEWAY_SECRET:
            found = self._gateway_secret.json()
            if found != self._published.raw:  # not what was just written here
                self._published.offer(found)
                self._concerned().gateways_changed()  # no plan is made from it
        elif self._term is not None:
            if name == TOKENS_SECRET:
                self._term.first_changed()
            self._term.plan_changed()

    def _facts_came(self) -> None:
        self._concerned().plan_changed()

    def _conductor_changed(self, cluster: str) -> None:
        if self._term is not None:
            self._term.conductor_changed(cluster)

    def _written(self, kind: Kind, before: Object, now: Object) -> None:
        self.caches.of(kind).put(before, now)

    def _token(self, key: str) -> str:
        """Text of a token file, see `tokens`."""
        return self._secrets.value(TOKENS_SECRET, key)


class _Deaf:
    """Who hears of changes while this replica does not lead: nobody. A new term looks at everything anyway."""

    def pool_changed(self, name: str) -> None: ...

    def plan_changed(self) -> None: ...

    def every_pool_changed(self) -> None: ...

    def gateways_changed(self) -> None: ...


async def operate(
    settings: OperatorSettings,
    *,
    host: str,
    port: int,
    kubeconfig: Path | None,
    context: str | None,
    say: Callable[[str], None],
) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code."""
    try:
        cluster = await connect(_version(), kubeconfig=kubeconfig, context=context)
    except NoClusterError as error:
        say(f"error: {error}")
        return error.exit_code
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with cluster, aiohttp.ClientSession() as session:
        running = asyncio.create_task(Operator(cluster, session, settings).run(host, port))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            return 0
        except Exception as error:
            log.error("ending: %s: %s", type(error).__name__, error, exc_info=error)
            return 1
    return 0


def run(
    settings: OperatorSettings,
    *,
    host: str,
    port: int,
    kubeconfig: Path | None = None,
    context: str | None = None,
    say: Callable[[str], None],
) -> int:
    """As `operate`, in this thread."""
    from cotenant_serving.logs import log_to_stderr

    log_to_stderr()
    # Caches are many small dicts that live long: looking through all of them for garbage is most of what is saved.
    gc.set_threshold(50_000, 20, 50)
    job = operate(settings, host=host, port=port, kubeconfig=kubeconfig, context=context, say=say)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(job)
    return int(uvloop.run(job))


def _facts(cache_dir: str, question: Question) -> Facts:
    return known_facts(question.source, cache_dir, question.access)


def _version() -> str:
    try:
        return version("cotenant")
    except PackageNotFoundError:
        return os.environ.get("COTENANT_VERSION", "0")
