"""Hugging Face hub: the only code here that talks to it. Pickles and Python files are never fetched.

Unless a source has its own, the access token comes from HF_TOKEN or the token file of the `hf` tool, the address from
HF_ENDPOINT, both read at each call. Downloads land in the plain Hugging Face layout, so every Hugging Face tool can
use them.
"""

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    tqdm,
)

from cotenant_cache.archive import archive_bytes
from cotenant_cache.errors import (
    CacheError,
    CorruptWeightsError,
    FileMissingError,
    HubUnreachableError,
    ModelNotFoundError,
)
from cotenant_cache.facts import ModelFacts
from cotenant_cache.headers import PREFIX_BYTES, WeightsHeader, header_length, parse_header
from cotenant_cache.reading import MAX_JSON_BYTES, read_contents, read_facts, small_files
from cotenant_cache.source import HubSource

_TIMEOUT_S = 10.0
_HEADERS_AT_ONCE = 4
_RANGE_BYTES = 64 * 2**10
_PLAIN_NAME = re.compile(r"\w[\w .+-]*(/\w[\w .+-]*)?", re.ASCII)
"""Of a file, or of one in a folder directly below: the only names of a listing that are ever joined to a path."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A revision resolved: its commit, and the size in bytes of every file."""

    commit: str
    sizes: dict[str, int]


def resolve(source: HubSource) -> Listing:
    """Branch, tag or commit → commit and files, in one request. Raises ModelNotFoundError, HubUnreachableError."""
    with _mapped_errors(source):
        info = _api(source).model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_S)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    commit = info.sha or ""
    if not replace(source, revision=commit).pinned:  # it becomes the name of a folder
        raise HubUnreachableError(
            f"{source.repo}: {_endpoint(source)} named no commit; check that HF_ENDPOINT is a hub"
        )
    return Listing(commit, sizes)


def remote_facts(source: HubSource) -> ModelFacts:
    """Facts from small files and the headers of the weights files, by range requests. Raises CacheError."""
    listing = resolve(source)
    pinned = replace(source, revision=listing.commit)
    return read_facts(_HubFiles(pinned, listing), source=pinned.at(listing.commit), fingerprint=listing.commit)


def download(source: HubSource, listing: Listing, cache_dir: Path, progress: Callable[[int, int], None]) -> Path:
    """What an engine needs of the resolved commit → its snapshot folder. Raises CacheError.

    Files that are there already are not fetched again. The branch's commit is recorded last, so a snapshot
    that a branch points to is whole.
    """
    pinned = replace(source, revision=listing.commit)
    names = _wanted(pinned, listing)
    bar = _progress_bar(progress, total=sum(listing.sizes[name] for name in names))
    with _mapped_errors(pinned):
        for name in names:
            path = Path(
                hf_hub_download(
                    source.repo,
                    name,
                    revision=listing.commit,
                    cache_dir=cache_dir,
                    etag_timeout=_TIMEOUT_S,
                    endpoint=_endpoint(source),
                    token=source.access.token or None,
                    tqdm_class=bar,
                )
            )
            bar.finished(listing.sizes[name])
    repo_folder = path.parents[2] if "/" not in name else path.parents[3]
    with _mapped_errors(source):
        _record_revision(repo_folder, source, listing.commit)
    return repo_folder / "snapshots" / listing.commit


def _wanted(source: HubSource, listing: Listing) -> list[str]:
    """Small files first: a broken model is found before its weights are fetched."""
    files = _HubFiles(source, listing)
    contents = read_contents(files)
    return [*small_files(files.names, contents), *contents.weights]


@dataclass(frozen=True, slots=True)
class _HubFiles:
    """ModelFiles of a repository at one commit."""

    repo: HubSource
    listing: Listing

    @property
    def source(self) -> str:
        return self.repo.at(self.repo.revision)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in self.listing.sizes if _PLAIN_NAME.fullmatch(name))

    def json(self, name: str) -> Any:
        if name not in self.listing.sizes:
            raise FileMissingError(f"{self.source}: has no {name}; ask the owner of the model")
        if self.listing.sizes[name] > MAX_JSON_BYTES:
            raise CorruptWeightsError(
                f"{self.source}: {name} has {self.listing.sizes[name]} bytes, at most {MAX_JSON_BYTES} are read; "
                "ask the owner of the model"
            )
        try:
            return json.loads(_get(self.repo, name, most_bytes=MAX_JSON_BYTES))
        except (ValueError, RecursionError):
            raise CorruptWeightsError(f"{self.source}: {name} is not JSON; ask the owner of the model") from None

    def headers(self, names: Sequence[str]) -> list[tuple[WeightsHeader, int]]:
        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            headers = pool.map(self._header, names)
            return [(header, self.listing.sizes[name]) for name, header in zip(names, headers, strict=True)]

    def archive(self, name: str) -> tuple[int, int]:
        with self._open(name) as stream:
            return archive_bytes(stream, file=f"{self.source}: {name}"), self.listing.sizes[name]

    def _header(self, name: str) -> WeightsHeader:
        file, size = f"{self.source}: {name}", self.listing.sizes[name]
        with self._open(name) as stream:
            length = header_length(stream.read(PREFIX_BYTES), file=file, file_bytes=size)
            return parse_header(stream.read(length), file=file, file_bytes=size)

    def _open(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(_RemoteFile(self.repo, name, self.listing.sizes[name]), _RANGE_BYTES)


class _RemoteFile(io.RawIOBase):
    """A file of the hub as a stream: what is read is asked for by range. Raises CacheError."""

    def __init__(self, repo: HubSource, name: str, size: int) -> None:
        super().__init__()
        self._repo, self._name, self._size, self._at = repo, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        content = _get(self._repo, self._name, span=(self._at, self._at + count))
        if len(content) != count:
            raise _no_part(self._repo, self._name)
        buffer[:count] = content
        self._at += count
        return count


def _get(source: HubSource, file: str, *, most_bytes: int = 0, span: tuple[int, int] | None = None) -> bytes:
    """A small file, or the bytes from `span[0]` up to and without `span[1]` of any. No more than that is read.

    Raises CacheError.
    """
    url = hf_hub_url(source.repo, file, revision=source.revision, endpoint=_endpoint(source))
    wanted = {"range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
    headers = {**build_hf_headers(token=source.access.token or None), **wanted, "accept-encoding": "identity"}
    most_bytes = span[1] - span[0] if span else most_bytes
    content = bytearray()
    with (
        _mapped_errors(source),
        get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response,
    ):
        hf_raise_for_status(response)
        for part in response.iter_bytes():
            content += part
            if len(content) > most_bytes:
                raise _no_part(source, file) if span else _too_long(source, file, most_bytes)
    return bytes(content)


def _no_part(source: HubSource, file: str) -> CacheError:
    return HubUnreachableError(
        f"{source.repo}: {_endpoint(source)} answers no part of {file} when asked; "
        "check that HF_ENDPOINT is a hub that takes Range"
    )


def _too_long(source: HubSource, file: str, most_bytes: int) -> CacheError:
    return CorruptWeightsError(
        f"{source.at(source.revision)}: {file} is longer than {_endpoint(source)} lists it, at most {most_bytes} "
        "bytes are read; ask the owner of the model"
    )


def _record_revision(repo_folder: Path, source: HubSource, commit: str) -> None:
    """`refs/main` → commit, as the Hugging Face layout has it; written whole or not at all."""
    if source.pinned:
        return
    reference = repo_folder / "refs" / source.revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    partial = reference.with_name(f".{reference.name}.{os.getpid()}")
    partial.write_text(commit)
    partial.replace(reference)


def _api(source: HubSource) -> HfApi:
    return HfApi(endpoint=_endpoint(source), token=source.access.token or None)


def _endpoint(source: HubSource) -> str:
    return (source.access.endpoint or os.environ.get("HF_ENDPOINT", "https://huggingface.co")).rstrip("/")


@contextmanager
def _mapped_errors(source: HubSource) -> Iterator[None]:
    """The hub's exceptions → ours, in one place. None of the messages holds a token."""
    hub = _endpoint(source)
    try:
        yield
    except CacheError:
        raise
    except GatedRepoError:
        raise ModelNotFoundError(
            f"{source.repo} is gated: accept its terms on {hub}/{source.repo} and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{hub} has no model {source.repo}, or HF_TOKEN may not read it; check the name and the token"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFoundError(
            f"{source.repo} has no branch, tag or commit {source.revision!r}; look at {hub}/{source.repo}"
        ) from None
    except RemoteEntryNotFoundError:
        raise FileMissingError(f"{source.repo}@{source.revision}: a file is gone from the hub; try again") from None
    except HFValidationError:
        raise ModelNotFoundError(f"{source.repo!r} is no name of a model; use hf://owner/name") from None
    except OfflineModeIsEnabled:
        raise HubUnreachableError(
            f"{source.repo}@{source.revision} is not on disk and HF_HUB_OFFLINE is set; unset it once"
        ) from None
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise HubUnreachableError(
            f"{source.repo}: {hub} did not give it ({_short(error)}); check the network, HF_ENDPOINT and disk"
        ) from None


def _short(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else 'no details'}"


def _progress_bar(report: Callable[[int, int], None], *, total: int) -> Any:
    """A tqdm class that reports the bytes of all files together, and prints nothing."""

    class Bar(tqdm):  # type: ignore[misc, unused-ignore]
        whole_files = 0
        current = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            Bar.current += int(n or 0)
            report(min(Bar.whole_files + Bar.current, total), total)

        @staticmethod
        def finished(size: int) -> None:
            Bar.whole_files += size
            Bar.current = 0
            report(Bar.whole_files, total)

    return Bar
