"""Files → orders: what `up` sends to the conductor and to the gateway, and when that changes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cotenant_cache.disk import Volume
from cotenant_cache.errors import CacheError
from cotenant_operator.created_keys import CreatedKey, KeySource, new_key, with_created
from cotenant_operator.failure import Failure
from cotenant_operator.hub_facts import HubFacts
from cotenant_operator.key_book import KeyBook, KeysError, write_sources
from cotenant_operator.machine import cuda_memories, default_pool, device_memory
from cotenant_operator.manifests import ManifestErrors
from cotenant_operator.plan import DeviceFacts, Plan, World, plan
from cotenant_operator.problems import Problem
from cotenant_operator.render.desired import render_desired
from cotenant_operator.render.gateway import render_gateway
from cotenant_operator.render.key_sources import render_key_sources
from cotenant_operator.schema import ClusterMetadata, Metadata, SecretRef
from cotenant_operator.spec import GPUPool, Secret, Tenant, TenantKey, TenantSpec
from cotenant_operator.state_dir import StateDir, write_private
from cotenant_operator.world import read_world
from cotenant_serving.contract import Desired
from cotenant_serving.contract_gateway import GatewayConfig

HUB_WAIT_S = 3.0
REFUSED_AGAIN_S = 2.0
"""Models that were refused are looked at again this often: their cause may be gone."""
DEFAULT_TENANT = "default"
Print = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    desired: Desired
    gateway: GatewayConfig
    """With the keys that `cotenant key create` has made."""
    files_gateway: GatewayConfig
    """As the files alone have it."""
    key_sources: tuple[KeySource, ...] = ()
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
        self._news, self._key_news = _News(), _News()
        self._keys = _Keys(KeyBook(state.path))

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
        orders = self._orders(world, made, self._news.of(lines))
        return self._with_keys(orders) or orders

    def look(self, orders: Orders) -> Orders | None:
        """Orders that differ from the given ones, or None. Bad edits are told and change nothing.

        Keys are looked at by themselves: no mistake in a file keeps one alive that was revoked.
        """
        news = self._look_at_files(orders)
        return self._with_keys(news or replace(orders, notes=())) or news

    def _look_at_files(self, orders: Orders) -> Orders | None:
        refused = any(model.refusal for model in orders.plan.models)
        again = refused and time.monotonic() - self._read_s > REFUSED_AGAIN_S
        if self._take_print() == self._print and not again:
            return None
        try:
            news = self.read()
        except ManifestErrors as error:
            lines = self._news.of([f"{error}\nthe edit is not applied; what ran before goes on"])
            return replace(orders, notes=lines) if lines else None
        if _same(news.desired, orders.desired):
            news = replace(news, desired=orders.desired)
        if _same(news.gateway, orders.gateway):
            news = replace(news, gateway=orders.gateway)
        changed = news.desired is not orders.desired or news.gateway is not orders.gateway
        return news if changed or news.notes else None

    def publish(self, orders: Orders) -> None:
        """Write the gateway's configuration if it is not what stands there, and where the keys of the files stand."""
        write_sources(self._state.path, orders.key_sources)
        data = msgspec.json.encode(orders.gateway)
        path = self._state.gateway_config
        if not path.exists() or path.read_bytes() != data:
            write_private(path, data)
        self._set_budget()

    def _set_budget(self) -> None:
        """Of the weight cache, for every engine and `cotenant cache`. Raises Failure."""
        size = self._pool.spec.cache.size if self._pool is not None else None
        if size is None and not self._state.cache.exists():
            return
        try:
            volume = Volume(self._state.cache)
            if volume.budget() != size:
                volume.set_budget(size)
        except CacheError as error:
            raise Failure(error.message) from None
        except OSError as error:
            raise Failure(f"{self._state.cache}: {error.strerror}; check the disk and who may write there") from None

    def _orders(self, world: World, made: Plan, notes: tuple[str, ...]) -> Orders:
        generation = self._next_generation()
        gateway = render_gateway(
            made,
            world.manifests,
            generation=generation,
            conductors=[self.conductor_url],
            pool_token_file=str(self._state.secret("pool-token")),
            created=generation // 1000,
        )
        return Orders(
            desired=render_desired(made.pools[0], generation=generation),
            gateway=gateway,
            files_gateway=gateway,
            key_sources=render_key_sources(made, world.manifests),
            notes=notes,
            plan=made,
        )

    def _with_keys(self, orders: Orders) -> Orders | None:
        """The orders with the keys that are created and live now; None when that changes nothing."""
        created, problems = self._keys.now()
        gateway, notes = with_created(orders.files_gateway, created, time.time())
        notes = self._key_news.of((*problems, *notes))
        if _same(gateway, orders.gateway):
            return replace(orders, notes=(*orders.notes, *notes)) if notes else None
        gateway = msgspec.structs.replace(gateway, generation=self._next_generation())
        return replace(orders, gateway=gateway, notes=(*orders.notes, *notes))

    def _next_generation(self) -> int:
        """The clock may go back; generations must not."""
        self._generation = max(int(time.time() * 1000), self._generation + 1)
        return self._generation

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
            write_private(path, new_key().encode())
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
        return world.with_tenant(tenant, secret, str(path)), [note]

    def _take_print(self) -> Print:
        """Changes when any of the files does (or a folder given with -f gains or loses one)."""
        seen: list[object] = []
        for path in self._files:
            for file in sorted(path.glob("*.y*ml")) if path.is_dir() else [path]:
                seen.append((str(file), _stat(file)))
        return tuple(seen)


class _News:
    """Lines for people, each told when it is new."""

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()

    def of(self, lines: Sequence[str]) -> tuple[str, ...]:
        fresh = tuple(line for line in lines if line not in self._told)
        self._told = frozenset(lines)
        return fresh


class _Keys:
    """The created keys as they stand in their file, read again when it changes."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self._print: object = None
        self._keys: tuple[CreatedKey, ...] = ()
        self._problems: tuple[str, ...] = ()

    def now(self) -> tuple[tuple[CreatedKey, ...], tuple[str, ...]]:
        """All of them, and what is wrong with the file: what cannot be read changes nothing."""
        seen = _stat(self._book.path)
        if seen != self._print:
            self._print = seen
            try:
                self._keys, self._problems = self._book.read(), ()
            except KeysError as error:
                self._problems = (f"error: {error}; until then the keys work that did before",)
        return self._keys, self._problems


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
    except OSError:
        return None


def _same(one: Desired | GatewayConfig, other: Desired | GatewayConfig) -> bool:
    """Equal but for generation and creation time."""
    return _timeless(one) == _timeless(other)


def _timeless(message: Desired | GatewayConfig) -> Desired | GatewayConfig:
    if isinstance(message, GatewayConfig):
        models = tuple(msgspec.structs.replace(model, created=0) for model in message.models)
        return msgspec.structs.replace(message, generation=0, models=models)
    return msgspec.structs.replace(message, generation=0)
