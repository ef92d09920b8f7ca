"""Whose hub, whose token, and what the hub's refusals mean: what every request to a hub shares.

Unless a source has its own, the access token comes from HF_TOKEN or the token file of the `hf` tool, the address from
HF_ENDPOINT, both read at each call.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from cotenant_cache.errors import CacheError, FileMissingError, HubUnreachableError, ModelNotFoundError
from cotenant_cache.http_answers import is_transient, retry_after_s
from cotenant_cache.source import HubSource

TIMEOUT_S = 10.0


def endpoint(source: HubSource) -> str:
    return (source.access.endpoint or os.environ.get("HF_ENDPOINT", "https://huggingface.co")).rstrip("/")


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


@contextmanager
def mapped_errors(source: HubSource) -> Iterator[None]:
    """The hub's exceptions → ours, in one place. None of the messages holds a token."""
    hub = endpoint(source)
    try:
        yield
    except CacheError:
        raise
    except GatedRepoError:
        raise gated(source) from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{hub} has no model {source.repo}, or HF_TOKEN may not read it; check the name and the token"
        ) from None
    except RevisionNotFoundError:
        raise unknown_revision(source) from None
    except RemoteEntryNotFoundError:
        raise FileMissingError(f"{source.repo}@{source.revision}: a file is gone from the hub; try again") from None
    except HFValidationError:
        raise ModelNotFoundError(f"{source.repo!r} is no name of a model; use hf://owner/name") from None
    except OfflineModeIsEnabled:
        raise offline(source) from None
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        status, headers = _answer(error)
        raise HubUnreachableError(
            f"{source.repo}: {hub} did not give it ({_short(error)}); check the network, HF_ENDPOINT and disk",
            transient=not status or is_transient(status),
            retry_after_s=retry_after_s(headers, time.time()),
        ) from None


def _answer(error: Exception) -> tuple[int, Mapping[str, str]]:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code, error.response.headers
    return 0, {}


def _short(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else 'no details'}"
