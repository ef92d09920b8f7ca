"""Every error that the gateway itself answers with: one table, in OpenAI's shape or the Open Inference Protocol's.

openai-python maps them by status: 400 BadRequestError, 401 AuthenticationError, 404 NotFoundError,
429 RateLimitError, 500 and above InternalServerError. It retries 408, 409, 429 and 5xx by itself and
honours Retry-After.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cotenant_serving import oip_api
from cotenant_serving.openai_api import RequestError

MAX_RETRY_AFTER_S = 120


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table. `step` says what the client can do next and follows every message."""

    status: int
    type: str
    message: str
    step: str
    code: str = ""
    """The wire code; empty means the row's own name."""


_INVALID = "invalid_request_error"
_SERVER = "server_error"
_LIMIT = "rate_limit_error"

ERRORS: Mapping[str, ErrorKind] = {
    "invalid_api_key": ErrorKind(
        401, _INVALID, "The API key is missing or wrong.", "Send 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
    ),
    "conflicting_api_keys": ErrorKind(
        401, _INVALID, "The request carries two different API keys.", "Send one of them.", code="invalid_api_key"
    ),
    "unknown_route": ErrorKind(404, _INVALID, "This route does not exist.", "GET /openapi.json lists the routes."),
    "method_not_allowed": ErrorKind(
        405, _INVALID, "This route does not answer this method.", "The Allow header lists the methods."
    ),
    "model_not_found": ErrorKind(404, _INVALID, "The model does not exist.", "GET /v1/models lists yours."),
    "ambiguous_model": ErrorKind(400, _INVALID, "Several models have this name.", "Name it as namespace/name."),
    "wrong_task": ErrorKind(
        400, _INVALID, "The model's task is not served by this route.", "GET /openapi.json lists the routes."
    ),
    "model_version_not_found": ErrorKind(
        404, _INVALID, "The model has no such version.", "Leave the version out: each model has one, '1'."
    ),
    "malformed_request": ErrorKind(
        400, _INVALID, "The request is not valid HTTP/1.1.", "Send HTTP/1.1 as RFC 9112 has it."
    ),
    "url_too_long": ErrorKind(414, _INVALID, "The URL is too long.", "Send a shorter one; queries are not read."),
    "headers_too_large": ErrorKind(
        431, _INVALID, "The headers are too many or too long.", "Send at most 100, of 64 KiB together."
    ),
    "expectation_failed": ErrorKind(
        417, _INVALID, "The only known expectation is 100-continue.", "Send the request without Expect."
    ),
    "too_many_connections": ErrorKind(
        429, _LIMIT, "Too many connections of your tenant are open.", "Use those that are open for several requests."
    ),
    "body_too_large": ErrorKind(413, _INVALID, "The body is too large.", "Send a shorter one."),
    "body_too_slow": ErrorKind(408, _INVALID, "The body did not arrive in time.", "Send the request again."),
    "unsupported_encoding": ErrorKind(
        415, _INVALID, "Only bodies without content-encoding are read.", "Send the JSON uncompressed."
    ),
    "unsupported_media_type": ErrorKind(
        415, _INVALID, "The Content-Type names no JSON in UTF-8.", "Send JSON with 'Content-Type: application/json'."
    ),
    "rate_limit_exceeded": ErrorKind(
        429, _LIMIT, "A limit of your tenant is reached.", "Send it again after Retry-After seconds."
    ),
    "request_exceeds_limit": ErrorKind(
        400, _INVALID, "The request costs more than the whole limit.", "Send a shorter prompt or a lower max_tokens."
    ),
    "queue_full": ErrorKind(
        429, _LIMIT, "Too many requests of your tenant wait already.", "Send it again after Retry-After seconds."
    ),
    "overloaded": ErrorKind(503, _SERVER, "Too many requests wait.", "Send it again after Retry-After seconds."),
    "model_failed": ErrorKind(
        503,
        _SERVER,
        "The model could not be started.",
        "It is tried again by itself; 'cotenant explain model' tells its owner the cause.",
    ),
    "model_loading": ErrorKind(503, _SERVER, "The model is loading.", "Send it again after Retry-After seconds."),
    "no_capacity": ErrorKind(503, _SERVER, "No engine had room in time.", "Send it again after Retry-After seconds."),
    "conductor_unreachable": ErrorKind(
        503,
        _SERVER,
        "ConductorUnreachable: no engine serves the model and nothing can start one now.",
        "Send it again after Retry-After seconds.",
    ),
    "upstream_error": ErrorKind(502, _SERVER, "The engine broke off.", "Send the request again."),
    "timeout": ErrorKind(504, _SERVER, "The answer took too long.", "Ask for fewer tokens, or stream."),
    "shutting_down": ErrorKind(503, _SERVER, "The gateway is shutting down.", "Send the request again."),
    "not_ready": ErrorKind(503, _SERVER, "The gateway has no configuration yet.", "Send the request again soon."),
    "internal_error": ErrorKind(500, _SERVER, "The gateway failed.", "Report it with the x-request-id."),
}


def error(
    name: str,
    message: str = "",
    *,
    step: str | None = None,
    param: str | None = None,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> RequestError:
    """The error `name` of the table; `message` and `step` replace the default ones."""
    kind = ERRORS[name]
    extra = dict(headers or {})
    if retry_after_s is not None:
        extra["retry-after"] = str(retry_after(retry_after_s))
    return RequestError(
        kind.status,
        f"{message or kind.message} {step or kind.step}",
        param=param,
        code=kind.code or name,
        type_=kind.type,
        headers=extra,
    )


def speaks_oip(path: str) -> bool:
    """Whether answers of a path have the shapes of the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def body_for(problem: RequestError, path: str) -> bytes:
    """The error in the shape of the API that `path` belongs to."""
    return oip_api.error_body(problem.message) if speaks_oip(path) else problem.body()


def retry_after(seconds: float) -> int:
    """Whole seconds for the Retry-After header, 1 to 120."""
    if not math.isfinite(seconds):
        return MAX_RETRY_AFTER_S
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(seconds)))
