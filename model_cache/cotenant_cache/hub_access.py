"""Whose hub, whose token, and what the hub's refusals mean: what every request to a hub shares.

Unless a source has its own, the access token comes from HF_TOKEN or the token file of the `hf` tool, the address from
HF_ENDPOINT, both read at each call.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import build_hf_headers, validate_repo_id  # type: ignore[attr-defined]

from cotenant_cache.errors import FileMissingError, HubUnreachableError, ModelNotFoundError
from cotenant_cache.http_answers import is_hub_address
from cotenant_cache.source import HubSource


def endpoint(source: HubSource) -> str:
    """Raises HubUnreachableError for what is no address; what it is stands nowhere, it may have a password."""
    address = (source.access.endpoint or os.environ.get("HF_ENDPOINT", "https://huggingface.co")).rstrip("/")
    if not is_hub_address(address):
        raise HubUnreachableError(
            f"{source.repo}: the hub's address (HF_ENDPOINT, or hub.endpoint of the GPUPool) must be "
            "http(s)://host[:port][/path], without a user: a token comes from HF_TOKEN or a Secret"
        )
    return address


def token(source: HubSource) -> str | None:
    """The source's own; None leaves the choice to huggingface_hub. Raises HubUnreachableError.

    A file is read each time, since whoever mounts a Secret may replace what is in it.
    """
    if not source.access.token_file:
        return source.access.token or None
    try:
        return Path(source.access.token_file).read_text().strip() or None
    except (OSError, ValueError) as error:
        raise HubUnreachableError(
            f"{source.repo}: the file {source.access.token_file} with the hub's token cannot be read "
            f"({type(error).__name__}); write the token there and let this user read it"
        ) from None


def request_headers(source: HubSource) -> tuple[dict[str, str], dict[str, str]]:
    """What any server may see, and what only the hub itself may. Raises HubUnreachableError."""
    headers = {name.lower(): value for name, value in build_hf_headers(token=token(source)).items()}
    secret = {name: headers.pop(name) for name in ("authorization",) if name in headers}
    return headers, secret


def refuse_status(source: HubSource, name: str, status: int, headers: Mapping[str, str]) -> NoReturn:
    """What the hub itself has against giving a file. Raises ModelNotFoundError, FileMissingError."""
    hub, code = endpoint(source), headers.get("x-error-code", "")
    if code == "GatedRepo":
        raise gated(source)
    if code == "EntryNotFound":
        raise FileMissingError(f"{source.at(source.revision)}: {hub} has no {name}; ask the owner of the model")
    if code == "RevisionNotFound":
        raise unknown_revision(source)
    raise ModelNotFoundError(
        f"{hub} refuses {name} of {source.repo} (HTTP {status}), or HF_TOKEN may not read it; "
        "check the name and the token"
    )


def refuse_listing(source: HubSource, status: int, headers: Mapping[str, str]) -> None:
    """What the hub itself has against naming a model's files. What is no hub's own word is left to the caller: of
    it a model that is on disk knows nothing.

    Raises ModelNotFoundError, HubUnreachableError.
    """
    hub, code = endpoint(source), headers.get("x-error-code", "")
    if code == "GatedRepo":
        raise gated(source)
    if code == "RevisionNotFound":
        raise unknown_revision(source)
    if status == 401 and "Invalid credentials" in headers.get("x-error-message", ""):
        raise HubUnreachableError(f"{source.repo}: {hub} does not take HF_TOKEN (HTTP 401): renew the token")
    if code == "RepoNotFound" or status == 401:
        raise ModelNotFoundError(
            f"{hub} has no model {source.repo}, or HF_TOKEN may not read it; check the name and the token"
        )


def gated(source: HubSource) -> ModelNotFoundError:
    hub = endpoint(source)
    return ModelNotFoundError(f"{source.repo} is gated: accept its terms on {hub}/{source.repo} and set HF_TOKEN")


def unknown_revision(source: HubSource) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{source.repo} has no branch, tag or commit {source.revision!r}; look at {endpoint(source)}/{source.repo}"
    )


def offline(source: HubSource) -> HubUnreachableError:
    return HubUnreachableError(
        f"{source.repo}@{source.revision} is not on disk and HF_HUB_OFFLINE is set; unset it once"
    )


def file_url(source: HubSource, name: str) -> str:
    """Raises ModelNotFoundError for what is no name of a model."""
    try:
        return hf_hub_url(source.repo, name, revision=source.revision, endpoint=endpoint(source))
    except HFValidationError:
        raise _no_name(source) from None


def listing_url(source: HubSource) -> str:
    """Where the hub names commit and files of a revision. Raises ModelNotFoundError."""
    try:
        validate_repo_id(source.repo)
    except HFValidationError:
        raise _no_name(source) from None
    revision = quote(source.revision, safe="")
    return f"{endpoint(source)}/api/models/{source.repo}/revision/{revision}?blobs=true"


def _no_name(source: HubSource) -> ModelNotFoundError:
    return ModelNotFoundError(f"{source.repo!r} is no name of a model; use hf://owner/name")
