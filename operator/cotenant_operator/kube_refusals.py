"""Why the API server did not do what a person asked of the command line, and who can change that. Pure."""

import json
import re

from cotenant_operator.cluster_errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from cotenant_operator.kinds import BY_KIND

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)
_OF_CLUSTER = {"customresourcedefinitions", *(kind.plural for kind in BY_KIND.values() if not kind.namespaced)}
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
_KINDS: dict[int, type[ClusterError]] = {400: InvalidError, 409: ConflictError, 422: InvalidError}


class MissingRightError(ForbiddenError):
    """`right` is what the caller lacks: `list pods in namespace x`."""

    def __init__(self, message: str, right: str) -> None:
        super().__init__(message, status=403)
        self.right = right


def unreachable(context: str, server: str, cause: str) -> UnreachableError:
    said = " ".join(cause.split())[:300]
    return UnreachableError(
        f"the cluster of context {context!r} does not answer at {server}: {said}; try `kubectl get --raw /readyz`"
    )


def refusal(status: int, method: str, path: str, body: bytes, context: str) -> ClusterError:
    """The error of an answer from 400 on."""
    said = _message(body)
    if status == 401:
        text = f"the cluster of context {context!r} does not take these credentials: log in again, as for kubectl"
        return ForbiddenError(text, status=status)
    if status == 403:
        right = missing_right(method, path)
        return MissingRightError(f"you may not {right}; {who_grants(path)}", right)
    if status == 404:
        return NotFoundError(f"{said or path + ' is not there'} (context {context!r})", status=status)
    kind = _KINDS.get(status, ClusterError)
    return kind(f"the API server answered {status} to {method} {path}: {said}", status=status)


def missing_right(method: str, path: str) -> str:
    """`list pods in namespace team-a`, from a request that was refused."""
    match = _PATH.fullmatch(path)
    if match is None:
        return f"{method.lower()} {path}"
    resource, name, namespace = match["resource"], match["name"], match["namespace"]
    verb = _VERBS.get(method) or ("get" if name else "list")
    thing = f"{resource}/{match['sub']}" if match["sub"] else resource
    if match["group"] and "." in match["group"]:
        thing += f".{match['group']}"
    everywhere = "" if name or resource in _OF_CLUSTER else " in all namespaces"
    where = f" in namespace {namespace}" if namespace else everywhere
    return f"{verb} {thing}{where}"


def who_grants(path: str) -> str:
    """Which role has this right, and who can bind it."""
    match = _PATH.fullmatch(path)
    group, namespace = (match["group"], match["namespace"]) if match else (None, None)
    if group == "cotenant.dev" and match and match["resource"] == "modeldeployments":
        where = f"--namespace {namespace} " if namespace else ""
        return (
            "an administrator of the cluster, or of the namespace, can bind the ClusterRole `view`, which has this "
            f"right: kubectl create rolebinding NAME {where}--clusterrole view --user YOU"
        )
    if group == "cotenant.dev":
        kind = match["resource"] if match else ""
        return (
            f"an administrator of the cluster can grant it: kubectl create clusterrole see-{kind} --verb get,list "
            f"--resource {kind}.{group}; kubectl create clusterrolebinding NAME --clusterrole see-{kind} --user YOU"
        )
    where = f" in namespace {namespace}" if namespace else " of the cluster"
    return f"an administrator{where} (your platform team) has this right and can bind a role with it to you"


def _message(body: bytes) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace").strip()
    message = value.get("message") if isinstance(value, dict) else None
    return str(message)[:500] if message else ""
