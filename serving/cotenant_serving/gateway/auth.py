"""Who is asking: the tenant comes from the API key alone, and no answer ever repeats the key."""

import hashlib
import hmac
from collections.abc import Iterable

from cotenant_serving.gateway.errors import error

Headers = Iterable[tuple[bytes, bytes]]
_PREFIX = 16


class Keyring:
    """Which tenant a key belongs to. Holds hashes only."""

    def __init__(self, digests: Iterable[tuple[str, str]]) -> None:
        """`digests`: (hex SHA-256 of a key, tenant)."""
        self._by_prefix: dict[str, list[tuple[str, str]]] = {}
        for digest, tenant in digests:
            self._by_prefix.setdefault(digest.lower()[:_PREFIX], []).append((digest.lower(), tenant))

    def tenant(self, key: bytes) -> str | None:
        """Found by the first digits of the hash, then compared whole in constant time."""
        digest = hashlib.sha256(key).hexdigest()
        for known, tenant in self._by_prefix.get(digest[:_PREFIX], ()):
            if hmac.compare_digest(known, digest):
                return tenant
        return None


def authenticate(headers: Headers, keyring: Keyring) -> str:
    """Name of the tenant. Raises RequestError (401)."""
    tenant = keyring.tenant(presented_key(headers))
    if tenant is None:
        raise error("invalid_api_key")
    return tenant


def presented_key(headers: Headers) -> bytes:
    """The key in `Authorization: Bearer KEY` or `x-api-key: KEY`.

    Raises RequestError (401) when there is none, or when two differ: something in front may have checked one of
    them and we would act on the other.
    """
    keys = set()
    for name, value in headers:
        if name == b"authorization":
            keys.add(_bearer(value))
        elif name == b"x-api-key":
            keys.add(value.strip())
    keys.discard(b"")
    if len(keys) > 1:
        raise error("conflicting_api_keys")
    if not keys:
        raise error("invalid_api_key")
    return keys.pop()


def _bearer(value: bytes) -> bytes:
    scheme, _, key = value.strip().partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
