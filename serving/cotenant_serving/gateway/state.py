"""What the parts of one gateway process share. Built by `server`, or by a test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cotenant_serving.contract import REQUEST_TIMEOUT_S, GatewayTenant
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.config import Directory
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.upstream import Upstream
from cotenant_serving.gateway.usage import UsageLog


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds."""

    request_timeout_s: float = REQUEST_TIMEOUT_S
    """Admission to last byte."""
    hold_timeout_s: float = 120.0
    """How long a request may wait for an engine."""
    comment_after_s: float = 10.0
    """A stream held so long begins with waiting comments, if the engine's arrival is known; and their period."""
    body_timeout_s: float = 30.0
    """Headers to the last byte of the body."""
    drain_timeout_s: float = 20.0
    """SIGTERM to cutting what still runs."""
    max_body_bytes: int = 4 << 20
    max_connections: int = 4096
    """Client connections at a time, idle ones included; one more is answered 503 and closed."""


@dataclass(slots=True)
class Gateway:
    """`cut` is done when requests still running must end (after the drain)."""

    settings: Settings
    clock: Callable[[], float]
    dispatcher: Dispatcher
    upstream: Upstream
    usage: UsageLog
    metrics: Metrics
    cut: "asyncio.Future[None]"
    pool_known: Callable[[], bool]
    """Whether a conductor answered or a table is known."""
    directory: Directory | None = None
    draining: bool = False
    _limits: dict[str, TenantLimits] = field(default_factory=dict)

    def use(self, directory: Directory) -> None:
        """A new configuration, for requests that begin from now on."""
        self.directory = directory
        self.metrics.allow(directory.tenants, directory.models)
        for name, limits in self._limits.items():
            if name in directory.tenants:
                limits.change(directory.tenants[name].tenant.limits, self.clock())

    def limits(self, tenant: GatewayTenant) -> TenantLimits:
        """The tenant's buckets: made at its first request, the same ones ever after."""
        if tenant.name not in self._limits:
            self._limits[tenant.name] = TenantLimits(tenant.name, tenant.limits, self.clock())
        return self._limits[tenant.name]

    def unready(self) -> str:
        """Why this gateway should get no traffic; empty when it should."""
        if self.draining:
            return "draining"
        if self.directory is None:
            return "no configuration is loaded"
        if not self.pool_known():
            return "no conductor has answered and no table is known"
        return ""
