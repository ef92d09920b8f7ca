"""Sources of models as they stand in YAML: `file:///dir` and `hf://repo@revision`. Pure."""

import re
from dataclasses import dataclass, field

from cotenant_cache.errors import ModelNotFoundError, NotSupportedError

_HF = re.compile(r"hf://(?P<repo>[\w][\w.-]*(?:/[\w][\w.-]*)?)(?:@(?P<revision>[\w][\w./+-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
"""The revision of a source that names none."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    path: str


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Which hub, and whose token. Empty: as HF_ENDPOINT, HF_TOKEN and the token file of the `hf` tool say."""

    endpoint: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    """Path of a file that holds the token, as a mounted Secret is; read at each call, and before `token`."""


@dataclass(frozen=True, slots=True)
class HubSource:
    repo: str
    revision: str = MAIN
    access: HubAccess = HubAccess()

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> str:
        return f"hf://{self.repo}@{commit}"


def parse_source(source: str) -> FolderSource | HubSource:
    """Raises ModelNotFoundError for anything else, NotSupportedError for `oci://`."""
    if source.startswith("oci://"):
        raise NotSupportedError(
            f"{source!r}: models in OCI registries are not supported yet; use hf://owner/name@revision or file:///folder"
        )
    path = source.removeprefix("file://")
    if source.startswith("file:///") and source.isprintable() and ".." not in path.split("/"):
        return FolderSource(path)
    match = _HF.fullmatch(source)
    if match is None or ".." in source:
        raise ModelNotFoundError(
            f"{source!r} is no source of a model; use hf://owner/name@revision or file:///folder, without '..'"
        )
    return HubSource(match["repo"], match["revision"] or MAIN)
