"""Reading the bodies of requests: bounded in size, in time, and in what they and answers hold in memory together."""

import re
from collections import Counter
from collections.abc import Mapping

from cotenant_serving.contract import HEADER_JSON_LENGTH
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.errors import error
from cotenant_serving.openai_api import RequestError

BINARY_TIMES = 8
"""A body may be so many times longer than JSON may be when binary tensors follow the JSON: they are never parsed."""
HELD_BYTES = 512 << 20
"""What the bodies of all requests and answers of one process may hold, from the first byte to the end of the request;
those of one tenant half of it. A stream is never held whole."""
SMALL_BYTES = 16 << 10
"""A body that came whole, or an answer, is not counted up to here: the cap of connections bounds what those hold."""
_JSON_LENGTH = HEADER_JSON_LENGTH.encode()
JSON = b"application/json"
"""What most clients call their body."""
_NEVER_JSON = re.compile(rb"multipart/|(?=.*;\s*+charset\s*+=\s*+\"?+(?!utf-?8|us-ascii))", re.IGNORECASE | re.DOTALL)
"""Bodies in parts, and texts in other characters; what else a client calls its JSON is its own affair."""
_LENGTH_DIGITS = 20
"""More digits than any number of bytes has: nothing longer is turned into a number."""


class BodyBudget:
    """Counts the bytes of bodies that are held."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self.most = held_bytes
        self.held = 0
        self.of_tenant: Counter[str] = Counter()


class Reservation:
    """What one request holds of the budget, until `release`."""

    __slots__ = ("_budget", "_taken", "_tenant")

    def __init__(self, budget: BodyBudget, tenant: str) -> None:
        self._budget, self._tenant, self._taken = budget, tenant, 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises RequestError (503) when it is too much."""
        budget = self._budget
        if budget.of_tenant[self._tenant] + size > budget.most // 2 or budget.held + size > budget.most:
            raise error("overloaded", "Too many bytes of requests and answers are held.", retry_after_s=1)
        budget.held += size
        budget.of_tenant[self._tenant] += size
        self._taken += size

    def release(self) -> None:
        budget, taken = self._budget, self._taken
        if not taken:
            return
        self._taken = 0
        budget.held -= taken
        budget.of_tenant[self._tenant] -= taken
        if not budget.of_tenant[self._tenant]:
            del budget.of_tenant[self._tenant]


def check_headers(headers: Mapping[bytes, bytes], max_bytes: int, max_json_bytes: int) -> None:
    """Refuses by its headers a body that would be refused anyway. Raises RequestError (413, 415)."""
    length = int(headers.get(b"content-length", b"0")[:_LENGTH_DIGITS])
    if length > max_bytes:
        raise _too_large(f"{length} bytes", max_bytes)
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() not in (b"", b"identity"):
        raise error("unsupported_encoding")
    content_type = headers.get(b"content-type", JSON)
    if content_type != JSON and _NEVER_JSON.match(content_type):
        raise error("unsupported_media_type")
    json_length = headers.get(_JSON_LENGTH, b"")
    if json_length.isdigit() and int(json_length[:_LENGTH_DIGITS]) > max_json_bytes:
        raise _too_large(f"{int(json_length[:_LENGTH_DIGITS])} bytes of JSON", max_json_bytes)


async def read_body(client: Client, max_bytes: int, held: Reservation) -> bytes:
    """The whole body as it comes. Raises RequestError (408, 413, 503), or ClientGoneError."""
    parts, size = [], 0
    try:
        while part := await client.body_part():
            size += len(part)
            check_size(size, max_bytes)
            parts.append(part)
            held.take(len(part))
    except TimeoutError:
        raise error("body_too_slow") from None
    return b"".join(parts)


def check_size(size: int, most: int) -> None:
    """Of a body whose headers do not say it. Raises RequestError (413)."""
    if size > most:
        raise _too_large(f"more than {most} bytes", most)


def _too_large(given: str, most: int) -> RequestError:
    return error("body_too_large", f"The body has {given}; at most {most} are read.")
