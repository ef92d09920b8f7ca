"""The configuration file: read, checked, indexed for look-ups, and read again when it changes.

A file that cannot be used never replaces one that could: revoking by accident is as bad as failing open.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_serving.contract import GatewayConfig, GatewayModel, GatewayTenant
from cotenant_serving.gateway.auth import Keyring

log = logging.getLogger("cotenant.gateway")

POLL_S = 0.2


class ConfigError(Exception):
    """The configuration cannot be used; the message says which file, which field and what to do."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant with the models that it sees."""

    tenant: GatewayTenant
    models: Mapping[str, GatewayModel]
    """`namespace/name` → model."""
    bare: Mapping[str, tuple[str, ...]]
    """`name` → every visible `namespace/name` that ends in it, sorted."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One version of the configuration, indexed. Immutable: a request keeps the version it began with."""

    config: GatewayConfig
    tenants: Mapping[str, TenantView]
    keyring: Keyring
    models: frozenset[str]


def index(config: GatewayConfig) -> Directory:
    """Raises ConfigError: a limit is below 1, or a key or tenant stands twice, so whose would the request be?"""
    models = {model.name: model for model in config.models}
    tenants: dict[str, TenantView] = {}
    tenant_by_key: dict[str, str] = {}
    for tenant in config.tenants:
        if tenant.name in tenants:
            raise ConfigError(f"tenants: '{tenant.name}' stands twice; merge the two.")
        _check_limits(tenant)
        tenants[tenant.name] = _view(tenant, models)
        for digest in tenant.key_sha256:
            owner = tenant_by_key.setdefault(digest.lower(), tenant.name)
            if owner != tenant.name:
                raise ConfigError(f"key_sha256: '{owner}' and '{tenant.name}' have the same key; make a new one.")
    return Directory(config, tenants, Keyring(tenant_by_key.items()), frozenset(models))


def _check_limits(tenant: GatewayTenant) -> None:
    for name, value in msgspec.structs.asdict(tenant.limits).items():
        if value is not None and value < 1:
            raise ConfigError(
                f"tenants: limits.{name} of '{tenant.name}' is {value}; it must be 1 or more, or null for no limit."
            )


def _view(tenant: GatewayTenant, models: Mapping[str, GatewayModel]) -> TenantView:
    seen = {name: models[name] for name in sorted(set(tenant.models)) if name in models}
    bare: dict[str, tuple[str, ...]] = {}
    for name in seen:
        short = name.partition("/")[2]
        bare[short] = (*bare.get(short, ()), name)
    bare |= {name.partition("/")[2]: (name,) for name in tenant.claims if name in seen}
    return TenantView(tenant, seen, bare)


def parse(raw: bytes) -> Directory:
    """JSON of a GatewayConfig → Directory. Raises ConfigError."""
    try:
        return index(msgspec.json.decode(raw, type=GatewayConfig))
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise ConfigError(f"not a gateway configuration: {problem}") from None


class ConfigFile:
    """Follows the configuration file and the pool token file that it names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._token_seen: object = None
        self.directory: Directory | None = None
        self.pool_token = ""

    def poll(self) -> bool:
        """Reads what changed since the last call. True when `directory` is new."""
        signature = _signature(self._path)
        if signature is None:
            if self._seen != "missing":
                log.error("configuration file %s cannot be read; keeping what is loaded", self._path)
            self._seen = "missing"
            return False
        changed = signature != self._seen and self._load(signature)
        self._poll_token()
        return changed

    async def watch(self, on_change: Callable[[Directory], None]) -> None:
        """Polls for ever; stat of one file, five times a second."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.poll() and self.directory is not None:
                on_change(self.directory)

    def _load(self, signature: object) -> bool:
        self._seen = signature
        try:
            self.directory = parse(self._path.read_bytes())
        except (ConfigError, OSError) as problem:
            log.error("configuration file %s is not used (keeping what is loaded): %s", self._path, problem)
            return False
        config = self.directory.config
        log.info(
            "configuration generation %d: %d tenants, %d models",
            config.generation,
            len(config.tenants),
            len(config.models),
        )
        return True

    def _poll_token(self) -> None:
        name = self.directory.config.pool_token_file if self.directory else ""
        signature = (name, _signature(Path(name))) if name else None
        if signature == self._token_seen:
            return
        self._token_seen = signature
        self.pool_token = ""
        if name:
            try:
                self.pool_token = Path(name).read_text().strip()
            except (OSError, UnicodeDecodeError) as problem:
                # The error of a bad decode quotes bytes of the file: only its kind is logged.
                log.error("pool token file %s cannot be read: %s", name, type(problem).__name__)


def _signature(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        stat = os.stat(path)
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
    return None
