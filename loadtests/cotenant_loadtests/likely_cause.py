"""Most requests failed in one way: what is likely the cause, and what to do. Pure."""

from collections import Counter
from collections.abc import Sequence

from cotenant_loadtests.results import ErrorExample, Results

MOST = 0.5
"""Of the scheduled requests: with more of one kind, it is what the run shows."""
_NO_API = (404, 405, 501)


def likely_cause(results: Results) -> str | None:
    """One sentence; None where not most requests failed in one way."""
    counts = Counter[str]()
    for error in results.errors:
        counts[_kind(error)] += error.count
    if not counts:
        return None
    kind, count = counts.most_common(1)[0]
    failed = results.total.failed * count / counts.total()  # the examples are not all that failed
    if not kind or failed <= MOST * results.total.scheduled:
        return None
    errors = [error for error in results.errors if _kind(error) == kind]
    return _sentence(kind, results.target, errors)


def _kind(error: ErrorExample) -> str:
    """Empty: it has no one cause that could be named."""
    if error.outcome in ("connect", "tls", "redirect"):
        return error.outcome
    if error.outcome == "http_error":
        if error.status in (401, 403):
            return "key"
        if error.status in _NO_API:
            return "api"
    return "shape" if error.outcome in ("framing", "bad_json") else ""


def _sentence(kind: str, target: str, errors: Sequence[ErrorExample]) -> str:
    first = max(errors, key=lambda error: error.count)
    match kind:
        case "connect":
            return (
                f"no connection to {target} ({first.detail or 'refused'}): look whether the server still runs there"
            )
        case "tls":
            return (
                f"no TLS with {target} ({first.detail}): look at the scheme of target.url, at target.ca_file and "
                "target.verify_tls"
            )
        case "redirect":
            return f"{target} sends elsewhere ({first.status}), which is never followed: give that address itself"
        case "key":
            return _keys(errors)
        case "api":
            return (
                f"{first.status} from {target}: it does not have this API or this model; look at target.url (without "
                f"/v1 at its end), the stream's api, and the model {first.model}"
            )
    return (
        f"what {target} answers is not of the API ({first.detail or first.outcome}): look at target.url and its port"
    )


def _keys(errors: Sequence[ErrorExample]) -> str:
    tenants = sorted({error.tenant for error in errors})
    status = " and ".join(map(str, sorted({error.status for error in errors})))
    more = f" and {len(tenants) - 1} more" if len(tenants) > 1 else ""
    return (
        f"{status} for tenant {tenants[0]}{more}: the target takes no request without a key that it knows; say in "
        f"tenants.{tenants[0]}.key where it is"
    )
