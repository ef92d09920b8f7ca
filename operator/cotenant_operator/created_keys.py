"""API keys made by `cotenant key create`, and where those of the files stand. Pure.

A key itself is in none of these: it is printed once, and only its SHA-256 is kept.
"""

import hashlib
import secrets
from collections.abc import Sequence

import msgspec

from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant

ID_DIGITS = 12
PREFIX = "ct-"


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key of `keys.json`. Times are Unix seconds."""

    tenant: str
    sha256: str
    created: float
    expires: float | None = None
    """From then on it opens nothing; None: never."""
    made_by: str = "key create"

    @property
    def id(self) -> str:
        return key_id(self.sha256)

    def lives(self, now_s: float) -> bool:
        return self.expires is None or now_s < self.expires


class KeySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where one key of the YAML files stands."""

    id: str
    tenant: str
    secret: str
    key: str
    """Its name inside the Secret."""
    place: str
    """`FILE:LINE` of the Secret."""


def key_id(digest: str) -> str:
    """How people name a key: the first digits of its hash, which say nothing about a random key."""
    return digest[:ID_DIGITS]


def new_key() -> str:
    """256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def with_created(
    config: GatewayConfig, created: Sequence[CreatedKey], now_s: float
) -> tuple[GatewayConfig, tuple[str, ...]]:
    """The gateway's configuration with the created keys that live, and what a person should know.

    Keys of unknown tenants open nothing. A key that two tenants have belongs to neither.
    """
    added = [key for key in created if key.lives(now_s)]
    owners: dict[str, set[str]] = {}
    merged: dict[str, tuple[str, ...]] = {}
    for tenant in config.tenants:
        own = (key.sha256 for key in added if key.tenant == tenant.name)
        merged[tenant.name] = tuple(dict.fromkeys((*tenant.key_sha256, *own)))
        for digest in merged[tenant.name]:
            owners.setdefault(digest, set()).add(tenant.name)
    shared = {digest: names for digest, names in owners.items() if len(names) > 1}
    notes = tuple(
        f"warning: key {key_id(digest)} belongs to tenants {' and '.join(sorted(names))}, so it works for neither: "
        f"run `cotenant key revoke {key_id(digest)}`, and make a new one for each"
        for digest, names in shared.items()
    )
    tenants = tuple(_with_keys(tenant, merged[tenant.name], shared) for tenant in config.tenants)
    return msgspec.structs.replace(config, tenants=tenants), notes


def _with_keys(tenant: GatewayTenant, digests: Sequence[str], shared: dict[str, set[str]]) -> GatewayTenant:
    return msgspec.structs.replace(tenant, key_sha256=tuple(digest for digest in digests if digest not in shared))
