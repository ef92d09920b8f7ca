"""Tenants' API keys, from where the scenario says. A key is in memory only: no error, log or result holds one."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cotenant_loadtests.refusals import RefusedError

if TYPE_CHECKING:  # the command line imports this, and pydantic takes its time
    from cotenant_loadtests.spec import KeySource, Scenario


class LocalKeys(Protocol):
    """Keys made for one run, where whoever serves the target runs on this machine."""

    def gateway_url(self) -> str | None:
        """The gateway that takes them; None when none runs here."""

    def keys(self, tenants: Sequence[str]) -> AbstractContextManager[Mapping[str, str]]:
        """A key for each tenant, good until the block ends. Raises RefusedError."""


class NoLocalKeys:
    def gateway_url(self) -> str | None:
        return None

    def keys(self, tenants: Sequence[str]) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})


@contextlib.contextmanager
def keys_for(
    scenario: "Scenario", tenants: Sequence[str], folder: Path, environment: Mapping[str, str], local: LocalKeys
) -> Iterator[Mapping[str, str]]:
    """Tenant → key, of those that need one; the scenario's files are beside it in `folder`. Raises RefusedError."""
    given = given_keys(scenario, tenants, folder, environment)
    others = [name for name in tenants if name not in given]
    if not others or not same_server(scenario.target.url, local.gateway_url()):
        yield given
        return
    with local.keys(others) as made:
        yield {**given, **made}


def given_keys(
    scenario: "Scenario", tenants: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Tenant → key, where the scenario says where it is. Raises RefusedError."""
    sources = {name: spec.key for name, spec in scenario.tenants.items() if spec.key is not None and name in tenants}
    return {name: _given(name, source, folder, environment) for name, source in sources.items()}


def same_server(url: str, other: str | None) -> bool:
    """Do both name one scheme, host and port?"""
    from urllib.parse import urlsplit

    if other is None:
        return False
    ours, theirs = urlsplit(url), urlsplit(other)
    same_host = _host(ours.hostname) == _host(theirs.hostname)
    return same_host and (ours.scheme, ours.port) == (theirs.scheme, theirs.port)


def _host(name: str | None) -> str:
    """A gateway that listens everywhere also listens on loopback."""
    return "127.0.0.1" if name in ("localhost", "0.0.0.0", "::", "::1") else name or ""  # noqa: S104 - compared only


def _given(tenant: str, source: "KeySource", folder: Path, environment: Mapping[str, str]) -> str:
    where = f"tenants.{tenant}.key"
    if (source.env is None) == (source.file is None):
        raise RefusedError(f"{where}: exactly one of env and file says where the key is; give one of them")
    if source.env is not None:
        return _checked(
            environment.get(source.env, "").strip(),
            f"{where}.env: the variable {source.env}",
            f"set it, such as by `export {source.env}=…`",
        )
    assert source.file is not None
    path = folder / Path(source.file).expanduser()
    try:
        value = path.read_text().strip()
    except OSError as error:
        raise RefusedError(
            f"{where}.file: {path} cannot be read: {error.strerror}; write the key of tenant {tenant} into it"
        ) from None
    except UnicodeDecodeError:
        raise RefusedError(f"{where}.file: {path} is no text; it must hold the key and nothing else") from None
    return _checked(value, f"{where}.file: {path}", "it must hold the key and nothing else")


def fits_header(key: str) -> bool:
    """Visible ASCII, and some of it."""
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _checked(value: str, where: str, step: str) -> str:
    """A key that can stand in a header."""
    if not value:
        raise RefusedError(f"{where} holds no key; {step}")
    if not fits_header(value):
        raise RefusedError(
            f"{where} holds what can be no key: line breaks, spaces or characters beyond ASCII cannot stand in a "
            "header; put the key there, and nothing else"
        )
    return value
