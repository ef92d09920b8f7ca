"""Who is asking: the tenant comes from the API key alone, and no answer ever repeats the key."""

import binascii
import contextlib
import hmac
from collections.abc import Iterable
from hashlib import sha256

from cotenant_serving.gateway.errors import error

Headers = Iterable[tuple[bytes, bytes]]
_PREFIX = 8


class Keyring:
    """Which tenant a key belongs to. Holds hashes only."""

    def __init__(self, digests: Iterable[tuple[str, str]]) -> None:
        """`digests`: (hex SHA-256 of a key, tenant). What is no hexadecimal number is nobody's."""
        self._by_prefix: dict[bytes, list[tuple[bytes, str]]] = {}
        for text, tenant in digests:
            with contextlib.suppress(ValueError):
                digest = binascii.unhexlify(text)
                self._by_prefix.setdefault(digest[:_PREFIX], []).append((digest, tenant))

    def tenant(self, key: bytes) -> str | None:
        """Found by the first bytes of the hash, then compared whole in constant time."""
        digest = sha256(key).digest()
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
    found = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            key = key.strip() if scheme.lower() == b"bearer" else b""
        elif name == b"x-api-key":
            key = value.strip()
        else:
            continue
        if key and found and key != found:
            raise error("conflicting_api_keys")
        found = key or found
    if not found:
        raise error("invalid_api_key")
    return found
