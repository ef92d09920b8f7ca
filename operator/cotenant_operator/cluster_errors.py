"""What the API server may answer instead of what was asked. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from cotenant_operator.failure import Failure


class ClusterError(Failure):
    """`status` is the HTTP status, 0 when there was no answer; `retry_after_s` what the server asks for, or 0.

    `message` is what the server itself said, where it did.
    """

    def __init__(
        self, what: str, *, status: int = 0, reason: str = "", message: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(what)
        self.message = message or what
        self.status, self.reason, self.retry_after_s = status, reason, retry_after_s


class NotFoundError(ClusterError):
    """No such object, or no such kind (its CRD is not installed)."""


class ConflictError(ClusterError):
    """The object changed meanwhile, exists already, or is another one of the same name."""


class GoneError(ClusterError):
    """The resource version is too old: list again."""


class ForbiddenError(ClusterError):
    """Not allowed: RBAC, or not known who we are."""


class InvalidError(ClusterError):
    """The API server will not take this object, now or later."""


class UnreachableError(ClusterError):
    """No answer, or none in time: the API server, or the way to it, is down or overloaded."""


class SilentError(UnreachableError):
    """A watch said nothing for so long that its connection may be dead: open it anew."""


_NOT_TYPED = "failed to create typed patch object"
"""The API server answers a server-side apply of a wrong type with 500, as if it were at fault."""

_BY_STATUS: Mapping[int, type[ClusterError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: InvalidError,
    422: InvalidError,
    429: UnreachableError,
}


def error_of(what: str, status: int, body: bytes, retry_after: str = "") -> ClusterError:
    """`what` was asked, such as `PATCH /api/v1/…`; `body` is a Status object, or what a proxy wrote instead."""
    said: Any = {}
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = {"message": body[:200].decode(errors="replace")}
    message, reason = (said.get("message", ""), said.get("reason", "")) if isinstance(said, dict) else ("", "")
    kind = _BY_STATUS.get(status, UnreachableError if status >= 500 else ClusterError)
    if status == 500 and _NOT_TYPED in message:
        kind = InvalidError
    wait = float(retry_after) if retry_after.isdigit() else 0.0
    text = f"{what}: {status} {message or reason}".strip()
    return kind(text, status=status, reason=reason, message=message, retry_after_s=wait)
