"""Files → orders: what `up` sends to the conductor and to the gateway, and when that changes."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cotenant_operator.hub_facts import HubFacts
from cotenant_operator.machine import cuda_memories, default_pool, device_memory
from cotenant_operator.manifests import ManifestErrors
from cotenant_operator.plan import DeviceFacts, Plan, World, plan
from cotenant_operator.problems import Problem
from cotenant_operator.render.desired import render_desired
from cotenant_operator.render.gateway import render_gateway
from cotenant_operator.schema import ClusterMetadata, Metadata, SecretRef
from cotenant_operator.spec import GPUPool, Secret, Tenant, TenantKey, TenantSpec
from cotenant_operator.state_dir import StateDir, write_private
from cotenant_operator.world import read_world
from cotenant_serving.contract import Desired, GatewayConfig

HUB_WAIT_S = 3.0
REFUSED_AGAIN_S = 2.0
"""Models that were refused are looked at again this often: their cause may be gone."""
DEFAULT_TENANT = "default"
Print = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    desired: Desired
    gateway: GatewayConfig
    notes: tuple[str, ...] = ()
    """What a person should know, once."""
    plan: Plan


class Desk:
    """Owns what was read last: the print of the files, and the pool that this run has (fixed at its start)."""

    def __init__(self, files: Sequence[Path], state: StateDir, *, conductor_port: int) -> None:
        self._files, self._state = tuple(files), state
        self.conductor_port = conductor_port
        self._generation = 0
        self._hub = HubFacts(str(state.cache))
        self._pool: GPUPool | None = None
        self.devices: Mapping[str, DeviceFacts] = {}
        self.cuda_devices = 0
        self._print: Print = ()
        self._read_s = 0.0
        self._told: frozenset[str] = frozenset()

    @property
    def conductor_url(self) -> str:
        return f"http://127.0.0.1:{self.conductor_port}"

    def read(self) -> Orders:
        """Read everything now. Raises ManifestErrors."""
        self._print, self._read_s = self._take_print(), time.monotonic()
        first = self._pool is None
        world = read_world(self._files, self._state.cache, ask_hub=self._hub.ask)
        if first:  # an answer that comes soon is worth a short wait: it spares everybody a `FactsPending`
            self._hub.wait(HUB_WAIT_S)
            world = read_world(self._files, self._state.cache, ask_hub=self._hub.ask)
        pool, notes = self._one_pool(world)
        if not world.manifests.pools:
            world = world.with_pool(pool)
        else:
            world = replace(world, manifests=replace(world.manifests, pools=(pool,)))
        world, more = self._some_tenant(world)
        made = plan(world, {pool.metadata.name: self.devices})
        refused = [f"{m.name}: refused: {m.refusal.reason}: {m.refusal.message}" for m in made.models if m.refusal]
        lines = [
            *notes,
            *more,
            *(f"error: {e}" for e in made.errors),
            *(f"warning: {w}" for w in made.warnings),
            *refused,
        ]
        return self._orders(world, made, self._news(lines))

    def look(self, orders: Orders) -> Orders | None:
        """Orders that differ from the given ones, or None. Bad edits are told and change nothing."""
        refused = any(model.refusal for model in orders.plan.models)
        again = refused and time.monotonic() - self._read_s > REFUSED_AGAIN_S
        if self._take_print() == self._print and not again:
            return None
        try:
            news = self.read()
        except ManifestErrors as error:
            lines = self._news([f"{error}\nthe edit is not applied; what ran before goes on"])
            return replace(orders, notes=lines) if lines else None
        if _same(news.desired, orders.desired):
            news = replace(news, desired=orders.desired)
        if _same(news.gateway, orders.gateway):
            news = replace(news, gateway=orders.gateway)
        changed = news.desired is not orders.desired or news.gateway is not orders.gateway
        return news if changed or news.notes else None

    def publish(self, orders: Orders) -> None:
        """Write the gateway's configuration if it is not what stands there."""
        data = msgspec.json.encode(orders.gateway)
        path = self._state.gateway_config
        if not path.exists() or path.read_bytes() != data:
            write_private(path, data)

    def _orders(self, world: World, made: Plan, notes: tuple[str, ...]) -> Orders:
        # The clock may go back; generations must not.
        generation = self._generation = max(int(time.time() * 1000), self._generation + 1)
        return Orders(
            desired=render_desired(made.pools[0], generation=generation),
            gateway=render_gateway(
                made,
                world.manifests,
                generation=generation,
                conductors=[self.conductor_url],
                pool_token_file=str(self._state.secret("pool-token")),
                created=generation // 1000,
            ),
            notes=notes,
            plan=made,
        )

    def _one_pool(self, world: World) -> tuple[GPUPool, list[str]]:
        """The pool of this run; Ray's resources are made from it at the start, so it stays."""
        pools = world.manifests.pools
        if len(pools) > 1:
            names = ", ".join(pool.metadata.name for pool in pools)
            message = f"one machine runs one GPUPool; the files have {len(pools)}: {names}. Keep one."
            raise ManifestErrors([Problem(world.manifests.place("GPUPool", pools[1].metadata.name), 0, "", message)])
        if self._pool is None:
            self._pool = pools[0] if pools else default_pool()
            self.devices = device_memory(self._pool)
            self.cuda_devices = len(cuda_memories()[0])
        elif pools and pools[0].spec != self._pool.spec:
            return self._pool, ["the GPUPool was edited: restart `cotenant up` to apply it; the rest is applied now"]
        return self._pool, []

    def _some_tenant(self, world: World) -> tuple[World, list[str]]:
        """Files without any Tenant get one that sees all of them, with a key of its own."""
        if world.manifests.tenants:
            return world, []
        path = self._state.secret("default-key")
        if not path.exists():
            write_private(path, b"ct-" + secrets.token_urlsafe(32).encode())
        secret = Secret(
            metadata=Metadata(name="default-key", namespace="cotenant-system"),
            string_data={"token": path.read_text().strip()},
        )
        namespaces = tuple(dict.fromkeys(model.metadata.namespace for model in world.manifests.models))
        key = TenantKey(secret_ref=SecretRef(name="default-key", key="token"))
        tenant = Tenant(
            metadata=ClusterMetadata(name=DEFAULT_TENANT), spec=TenantSpec(namespaces=namespaces, keys=(key,))
        )
        note = f"the files have no Tenant: made one called {DEFAULT_TENANT!r}; its key stands in {path}"
        return world.with_tenant(tenant, secret), [note]

    def _news(self, lines: Sequence[str]) -> tuple[str, ...]:
        fresh = tuple(line for line in lines if line not in self._told)
        self._told = frozenset(lines)
        return fresh

    def _take_print(self) -> Print:
        """Changes when any of the files does (or a folder given with -f gains or loses one)."""
        seen: list[object] = []
        for path in self._files:
            for file in sorted(path.glob("*.y*ml")) if path.is_dir() else [path]:
                try:
                    stat = file.stat()
                    seen.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
                except OSError:
                    seen.append((str(file), None))
        return tuple(seen)


def _same(one: Desired | GatewayConfig, other: Desired | GatewayConfig) -> bool:
    """Equal but for generation and creation time."""
    return _timeless(one) == _timeless(other)


def _timeless(message: Desired | GatewayConfig) -> Desired | GatewayConfig:
    if isinstance(message, GatewayConfig):
        models = tuple(msgspec.structs.replace(model, created=0) for model in message.models)
        return msgspec.structs.replace(message, generation=0, models=models)
    return msgspec.structs.replace(message, generation=0)
