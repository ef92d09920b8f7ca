"""A planned request → the exact bytes that go over the wire. Made ahead of its time, so that sending is one write."""

from collections.abc import Mapping
from functools import lru_cache

from cotenant_loadtests.bodies import render, request_path
from cotenant_loadtests.keys import fits_header
from cotenant_loadtests.planned import Planned

_KEPT_HEADS = 4096


class RequestWriter:
    """Raises ValueError for a key that cannot stand in a header; it names the tenant, not the key."""

    def __init__(self, authority: str, prefix: str, keys: Mapping[str, str]) -> None:
        for tenant, key in keys.items():
            if not fits_header(key):
                raise ValueError(f"the key of tenant {tenant!r} cannot stand in an HTTP header: visible ASCII only")
        self._authority, self._prefix, self._keys = authority, prefix, dict(keys)
        self._head = lru_cache(_KEPT_HEADS)(self._make_head)

    def write(self, planned: Planned) -> bytes:
        body = render(planned)
        head = self._head(planned.tenant, request_path(planned), planned.streamed)
        return b"%s%d\r\n\r\n%s" % (head, len(body), body)

    def _make_head(self, tenant: str, path: str, streamed: bool) -> bytes:
        accept = "text/event-stream" if streamed else "application/json"
        lines = [
            f"POST {self._prefix}{path} HTTP/1.1",
            f"host: {self._authority}",
            "user-agent: cotenant-loadtest",
            f"accept: {accept}",
            "content-type: application/json",
        ]
        if tenant in self._keys:
            lines.append(f"authorization: Bearer {self._keys[tenant]}")
        return "\r\n".join([*lines, "content-length: "]).encode()
