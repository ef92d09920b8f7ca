"""Hugging Face hub: a model resolved to a commit with the digest of every file, which of them are wanted, and facts.

Pickles, Python files and unknown binaries are never fetched. Bodies come by `fetch.py`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from cotenant_cache.contract import ModelFile
from cotenant_cache.digests import is_digest
from cotenant_cache.errors import FileMissingError, HubUnreachableError, UnsafeFilesError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.hub_access import TIMEOUT_S, endpoint, mapped_errors, token
from cotenant_cache.hub_files import HubFiles
from cotenant_cache.kinds import kind_of, refusal
from cotenant_cache.reading import read_contents, read_facts, small_files
from cotenant_cache.source import HubSource


@dataclass(frozen=True, slots=True)
class Listing:
    """A revision resolved: its commit, and every file by name, with its digest."""

    commit: str
    files: Mapping[str, ModelFile]
    revision: str = ""
    """What was asked for: a branch, a tag or the commit."""


def resolve(source: HubSource) -> Listing:
    """Branch, tag or commit → commit and files, in one request.

    Raises ModelNotFoundError, HubUnreachableError (`transient` when asking again may help).
    """
    with mapped_errors(source):
        info = _api(source).model_info(source.repo, revision=source.revision, files_metadata=True, timeout=TIMEOUT_S)
    commit = info.sha or ""
    if not replace(source, revision=commit).pinned:  # it becomes the name of a folder
        raise HubUnreachableError(
            f"{source.repo}: {endpoint(source)} named no commit; check that HF_ENDPOINT is a hub"
        )
    files = {sibling.rfilename: _file(sibling) for sibling in info.siblings or ()}
    return Listing(commit, files, source.revision)


def _file(sibling: Any) -> ModelFile:
    """Of a RepoSibling. The digest stays empty where the hub names none, or none that is one."""
    digest = str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id or "")
    size = sibling.lfs.size if sibling.lfs else sibling.size
    return ModelFile(
        name=sibling.rfilename,
        size_bytes=size if isinstance(size, int) and size > 0 else 0,
        digest=digest if is_digest(digest) else "",
    )


def wanted(source: HubSource, listing: Listing) -> tuple[ModelFile, ...]:
    """What an engine needs of the resolved commit, small files first: a broken model is found before its weights.

    Descriptions are read from the hub for that, weights are not touched. Raises CacheError.
    """
    pinned = replace(source, revision=listing.commit)
    files = HubFiles(pinned, listing.files)
    try:
        contents = read_contents(files)
    except FileMissingError as error:
        raise _nothing_safe(error, listing) from None
    chosen = [listing.files[name] for name in (*small_files(files.names, contents), *contents.weights)]
    nameless = next((file.name for file in chosen if not file.digest), None)
    if nameless is not None:
        raise HubUnreachableError(
            f"{pinned.at(listing.commit)}: {endpoint(source)} lists no digest of {nameless}, so it could not be "
            "checked; check that HF_ENDPOINT is a hub that lists blobs"
        )
    return tuple(chosen)


def refused(listing: Listing) -> tuple[str, ...]:
    """What stays on the hub and why, a sentence for each file, in order of names."""
    return tuple(said for name in sorted(listing.files) if (said := refusal(name)))


def _nothing_safe(error: FileMissingError, listing: Listing) -> FileMissingError | UnsafeFilesError:
    """Names the weights that are there, when the model lacks only ones that may be read."""
    if any(kind_of(name) == "weights" for name in listing.files):
        return error
    unsafe = [name for name in sorted(listing.files) if kind_of(name) in ("pickle", "binary") and "/" not in name]
    return UnsafeFilesError(f"{error.message}. {refusal(unsafe[0])}") if unsafe else error


def remote_facts(source: HubSource) -> ModelFacts:
    """Facts from small files and the headers of the weights files, by range requests. Raises CacheError."""
    listing = resolve(source)
    pinned = replace(source, revision=listing.commit)
    return read_facts(HubFiles(pinned, listing.files), source=pinned.at(listing.commit), fingerprint=listing.commit)


def download(source: HubSource, listing: Listing, cache_dir: Path, progress: Callable[[int, int], None]) -> Path:
    """What an engine needs of the resolved commit → its snapshot folder. Raises CacheError.

    Files that are there already are not fetched again. The branch's commit is recorded last, so a snapshot
    that a branch points to is whole.
    """
    pinned = replace(source, revision=listing.commit)
    files = wanted(source, listing)
    bar = _progress_bar(progress, total=sum(file.size_bytes for file in files))
    with mapped_errors(pinned):
        for file in files:
            path = Path(
                hf_hub_download(
                    source.repo,
                    file.name,
                    revision=listing.commit,
                    cache_dir=cache_dir,
                    etag_timeout=TIMEOUT_S,
                    endpoint=endpoint(source),
                    token=token(source),
                    tqdm_class=bar,
                )
            )
            bar.finished(file.size_bytes)
    repo_folder = path.parents[2] if "/" not in file.name else path.parents[3]
    with mapped_errors(source):
        _record_revision(repo_folder, source, listing.commit)
    return repo_folder / "snapshots" / listing.commit


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
    return HfApi(endpoint=endpoint(source), token=token(source))


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
