"""What the parts of one worker process share. Built by `server`, or by a test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cotenant_serving.contract_gateway import GatewayTenant
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.board import USAGE_DROPPED, USAGE_UNSENT, Board
from cotenant_serving.gateway.bodies import BodyBudget
from cotenant_serving.gateway.config import Directory
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.metrics import Metrics, Now
from cotenant_serving.gateway.settings import Settings
from cotenant_serving.gateway.upstream import Upstream
from cotenant_serving.gateway.usage import UsageLog
from cotenant_serving.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from cotenant_serving.gateway.exchange import Exchange
    from cotenant_serving.gateway.quick import Quick


@dataclass(slots=True)
class Gateway:
    settings: Settings
    clock: Callable[[], float]
    """Seconds, the same for all workers of the machine: the buckets' times are compared."""
    board: Board
    dispatcher: Dispatcher
    upstream: Upstream
    usage: UsageLog
    metrics: Metrics
    pool_known: Callable[[], bool]
    """Whether there is a table, or nobody to wait for who has one (`Conductors.informed`)."""
    bodies: BodyBudget = field(default_factory=BodyBudget)
    tracer: Tracer = NO_TRACER
    directory: Directory | None = None
    leaving: bool = False
    """It ends soon, and serves until then."""
    draining: bool = False
    exchanges: "set[Exchange | Quick]" = field(default_factory=set)
    """Admitted requests that have not ended."""
    _limits: dict[str, TenantLimits] = field(default_factory=dict)

    def use(self, directory: Directory) -> None:
        """A new configuration, for requests that begin from now on."""
        self.directory = directory
        self.metrics.allow(directory.tenants, directory.models)
        for name, limits in self._limits.items():
            if name in directory.tenants:
                limits.change(directory.tenants[name].tenant.limits, self.clock(), directory.config.gateways)

    def limits(self, tenant: GatewayTenant) -> TenantLimits:
        """The tenant's buckets: made at its first request, the same ones ever after."""
        if tenant.name not in self._limits:
            account = self.board.account(tenant.name)
            gateways = self.directory.config.gateways if self.directory else 1
            self._limits[tenant.name] = TenantLimits(tenant.name, tenant.limits, account, self.clock(), gateways)
        return self._limits[tenant.name]

    def cut(self) -> None:
        """Requests that still run must end now: the drain is over."""
        for exchange in tuple(self.exchanges):
            exchange.end_early("shutdown", error("shutting_down", retry_after_s=1))

    def end_overdue(self) -> None:
        """Ends requests that have taken too long."""
        now = self.clock()
        for exchange in [one for one in self.exchanges if one.deadline <= now]:
            exchange.end_early("timeout", error("timeout"))

    def leave_silent_engines(self) -> None:
        """Requests that got no byte yet from an engine that hangs are tried elsewhere."""
        if silent := self.dispatcher.silent():
            for exchange in tuple(self.exchanges):
                exchange.leave(silent)

    def now(self) -> Now:
        """What a scrape of metrics shows beside counts: of all workers."""
        dispatcher, count = self.dispatcher, self.board.count
        models = self.directory.models if self.directory else ()
        return Now(
            models={
                name: (dispatcher.queue_depth(name), dispatcher.running(name), len(dispatcher.engines(name)))
                for name in models
            },
            workers=count("workers").total(),
            restarts=count("restarts").total(),
            usage_waiting=count("usage waiting").total(),
            usage_dropped=count(USAGE_DROPPED).total(),
            usage_recovered=count("usage recovered").total(),
            usage_unsent_bytes=count(USAGE_UNSENT).total(),
            generation=self.directory.config.generation if self.directory else 0,
        )

    def unready(self) -> str:
        """Why this gateway should get no traffic; empty when it should."""
        if self.leaving or self.draining:
            return "draining"
        if self.directory is None:
            return "no configuration is loaded"
        if not self.pool_known():
            return "no conductor has answered and no table is known"
        return ""
