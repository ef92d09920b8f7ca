"""In whose name a command calls a model, and with which key.

A key that is given is used as it is. Without one, on the machine of `up`, the command makes one, as whoever may write
the state directory can do anyway: it stands in no file, ends after KEY_LIVES_S, and is revoked when the command ends.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cotenant_operator.created_keys import CreatedKey
from cotenant_operator.failure import Failure, FlagError
from cotenant_operator.key_book import KeyBook
from cotenant_operator.key_effect import wait_until_known
from cotenant_operator.names import model_named, tenant_named
from cotenant_serving.contract_gateway import GatewayConfig

KEY_LIVES_S = 900.0
"""Longer than any request; prolonged while a conversation goes on. What a kill -9 leaves behind ends by then."""
KEY_VARIABLE = "COTENANT_API_KEY"
Clock = Callable[[], float]
AwaitKnown = Callable[[Path, str, str], bool]
"""State directory, key and its SHA-256 → does the gateway take it? As `wait_until_known`."""


@dataclass(frozen=True, slots=True)
class Caller:
    tenant: str
    model: str
    """`namespace/name`."""


def choose_caller(config: GatewayConfig, model: str, tenant: str | None) -> Caller:
    """The one tenant that sees the model, or the one that is named. Pure. Raises Failure."""
    tenants = {found.name: found for found in config.tenants}
    if tenant is not None:
        tenants = {tenant: tenants[tenant_named(tenant, tenants)]}
    full = model_named(model, _seen_or_all(config, model, [found.models for found in tenants.values()]))
    names = sorted(name for name, found in tenants.items() if full in found.models)
    if len(names) == 1:
        return Caller(names[0], full)
    if names:
        raise FlagError(f"several tenants see {full}: {', '.join(names)}; say which one calls with --tenant")
    who = f"tenant {tenant!r} does not see" if tenant else "no tenant sees"
    raise Failure(f"{who} {full}; add a tenant to its spec.tenants, and it to that tenant's spec.accepts")


def _seen_or_all(config: GatewayConfig, model: str, seen: list[tuple[str, ...]]) -> set[str]:
    """What the tenants see; everything when the name is none of it, so that the error can say the true reason."""
    visible = {name for names in seen for name in names}
    matches = any(model in (name, name.rpartition("/")[2]) for name in visible)
    return visible if matches else visible | {found.name for found in config.models}


class Key:
    """A key that was given."""

    def __init__(self, value: str) -> None:
        self._value = value

    def now(self) -> str:
        return self._value


class MadeKey(Key):
    """A key that lives as long as it is used. `clock` gives Unix seconds."""

    def __init__(
        self, book: KeyBook, tenant: str, made_by: str, clock: Clock, await_known: AwaitKnown = wait_until_known
    ) -> None:
        """Raises Failure when it cannot be made, or is not taken by the gateway."""
        self._book, self._tenant, self._made_by, self._clock = book, tenant, made_by, clock
        self._await_known = await_known
        self._made = self._make()

    def now(self) -> str:
        """The key, prolonged if less than half of its life is left, or anew if it has ended. Raises Failure."""
        now_s = self._clock()
        if self._made.expires is not None and now_s > self._made.expires - KEY_LIVES_S / 2:
            longer = self._book.extend(self._made, now_s + KEY_LIVES_S) if self._made.lives(now_s) else None
            self._made = longer or self._make()
        return self._value

    def end(self) -> None:
        self._book.revoke(self._made.id)

    def _make(self) -> CreatedKey:
        self._value, made = self._book.create(
            self._tenant, now_s=self._clock(), lives_s=KEY_LIVES_S, made_by=self._made_by
        )
        try:
            if not self._await_known(self._book.state, self._value, made.sha256):
                raise Failure(
                    "the gateway does not take a key that was just made; the output of `cotenant up` says why. "
                    f"With a key of your own it may work: set {KEY_VARIABLE}, or give --key-file"
                )
        except BaseException:  # Ctrl-C too: nobody would use it any more
            self._book.revoke(made.id)
            raise
        return made


@contextlib.contextmanager
def made_key(
    state: Path, tenant: str, made_by: str, clock: Clock = time.time, await_known: AwaitKnown = wait_until_known
) -> Iterator[MadeKey]:
    """A key for the length of one command. Raises Failure."""
    key = MadeKey(KeyBook(state), tenant, made_by, clock, await_known)
    try:
        yield key
    finally:
        key.end()


def given_key(key_file: Path | None, environment: Mapping[str, str]) -> Key | None:
    """The key in a file, else in $COTENANT_API_KEY, else none. Raises FlagError, which quotes nothing of the file."""
    if key_file is None:
        value = environment.get(KEY_VARIABLE, "").strip()
        return Key(value) if value else None
    try:
        value = key_file.read_text().strip()
    except OSError as error:
        raise FlagError(f"--key-file {key_file} cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        value = ""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise FlagError(f"--key-file {key_file} holds no key; it must hold the key and nothing else")
    return Key(value)
