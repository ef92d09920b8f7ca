"""`cotenant key list`: every key that is known, by its id, and where it comes from. Pure; no key, no whole hash."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_operator.created_keys import CreatedKey, KeySource, key_id
from cotenant_operator.instants import utc
from cotenant_serving.contract_gateway import GatewayTenant


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    id: str
    tenant: str
    source: str
    """`key create`, or the Secret and the key inside it."""
    place: str = ""
    """`FILE:LINE` of the Secret."""
    created: float | None = None
    expires: float | None = None
    tenant_exists: bool = True

    @property
    def is_created(self) -> bool:
        return self.created is not None


def known_keys(
    tenants: Sequence[GatewayTenant],
    created: Sequence[CreatedKey],
    sources: Sequence[KeySource] | None,
    now_s: float,
) -> list[KnownKey]:
    """Keys that live now, by tenant. `sources` is None where no `up` has written any: then the tenants' own count."""
    names = {tenant.name for tenant in tenants}
    made = [key for key in created if key.lives(now_s)]
    if sources is None:
        ids = {key.id for key in created}
        found = [
            KnownKey(id=key_id(digest), tenant=tenant.name, source="files")
            for tenant in tenants
            for digest in tenant.key_sha256
            if key_id(digest) not in ids
        ]
    else:
        found = [
            KnownKey(id=item.id, tenant=item.tenant, source=f"Secret {item.secret}, {item.key}", place=item.place)
            for item in sources
        ]
    found += [
        KnownKey(
            id=key.id,
            tenant=key.tenant,
            source=key.made_by,
            created=key.created,
            expires=key.expires,
            tenant_exists=key.tenant in names,
        )
        for key in made
    ]
    return sorted(found, key=lambda key: (key.tenant, key.created or 0.0, key.id))


def keys_per_tenant(keys: Sequence[KnownKey]) -> Mapping[str, int]:
    return Counter(key.tenant for key in keys if key.tenant_exists)


def key_rows(keys: Sequence[KnownKey], *, wide: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("ID", "TENANT", "SOURCE", "CREATED", "EXPIRES") + (("PLACE",) if wide else ())
    return columns, [
        (
            key.id,
            key.tenant if key.tenant_exists else f"{key.tenant} (gone)",
            key.source,
            _time(key.created) or "-",
            _time(key.expires) or "never",
            *((key.place or "-",) if wide else ()),
        )
        for key in keys
    ]


def key_document(keys: Sequence[KnownKey]) -> list[dict[str, Any]]:
    return [
        {
            "id": key.id,
            "tenant": key.tenant,
            "tenant_exists": key.tenant_exists,
            "source": key.source,
            "place": key.place or None,
            "created": _time(key.created),
            "expires": _time(key.expires),
        }
        for key in keys
    ]


def how_to_remove(key: KnownKey) -> str:
    """For a key that `key revoke` cannot take away, because it stands in a file."""
    if not key.place:
        return f"key {key.id} of tenant {key.tenant} stands in your YAML files; take it out there"
    if key.place.endswith("/secrets/default-key"):
        return f"key {key.id} is that of the tenant which `up` made; delete {key.place} and start `cotenant up` again"
    return (
        f"key {key.id} of tenant {key.tenant} comes from {key.source!r} at {key.place}; take it out there "
        "(`cotenant up` applies the edit within a second), or put a new one in its place"
    )


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else utc(unix_s)
