"""Hugging Face hub: a model resolved to a commit with the digest of every file, which of them are wanted, and facts.

Pickles, Python files and unknown binaries are never fetched. Bodies come by `fetch.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from cotenant_cache.backoff import LeftS, no_end
from cotenant_cache.contract import ModelFile
from cotenant_cache.digests import is_digest
from cotenant_cache.errors import FileMissingError, HubUnreachableError, UnsafeFilesError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.hub_access import endpoint
from cotenant_cache.hub_files import HubFiles
from cotenant_cache.hub_reads import HubReads
from cotenant_cache.kinds import kind_of, refusal
from cotenant_cache.listings import MOST_BYTES, excess
from cotenant_cache.reading import read_contents, read_facts, small_files
from cotenant_cache.rests import Rests
from cotenant_cache.source import HubSource


class _Lfs(msgspec.Struct):
    sha256: str | None = None
    size: int | None = None


class _Sibling(msgspec.Struct):
    """A file, as the hub lists it; fields have its names."""

    rfilename: str
    size: int | None = None
    blobId: str | None = None  # noqa: N815
    lfs: _Lfs | None = None


class _Said(msgspec.Struct):
    """The hub's listing of a revision, as far as it is needed."""

    sha: str = ""
    siblings: tuple[_Sibling, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """A revision resolved: its commit, and every file by name, with its digest."""

    commit: str
    files: Mapping[str, ModelFile]
    revision: str = ""
    """What was asked for: a branch, a tag or the commit."""


def resolve(source: HubSource, left_s: LeftS = no_end, rests: Rests | None = None) -> Listing:
    """Branch, tag or commit → commit and files, in one request.

    A commit is itself or an error. Raises ModelNotFoundError, HubUnreachableError (`transient` when asking again may
    help).
    """
    try:
        said = msgspec.json.decode(HubReads(source, left_s=left_s, rests=rests).listing(), type=_Said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HubUnreachableError(
            f"{source.repo}: {endpoint(source)} answers with what is no listing ({error}); check that HF_ENDPOINT is "
            "a hub",
            transient="truncated" in str(error),
        ) from None
    if not replace(source, revision=said.sha).pinned:  # it becomes the name of a folder
        raise HubUnreachableError(
            f"{source.repo}: {endpoint(source)} named no commit; check that HF_ENDPOINT is a hub"
        )
    if source.pinned and said.sha != source.revision:
        raise HubUnreachableError(
            f"{source.at(source.revision)}: {endpoint(source)} answers with commit {said.sha} instead; nothing of "
            "that is taken: check HF_ENDPOINT, or the mirror or proxy behind it"
        )
    files = {one.rfilename: _file(one) for one in said.siblings}
    for file in files.values():
        if file.size_bytes > MOST_BYTES:
            raise HubUnreachableError(
                f"{source.repo}: {endpoint(source)} lists {file.name[:200]} with {file.size_bytes} bytes, at most "
                f"{MOST_BYTES} are taken; check that HF_ENDPOINT is a hub"
            )
    return Listing(said.sha, files, source.revision)


def _file(sibling: _Sibling) -> ModelFile:
    """The digest stays empty where the hub names none, or none that is one."""
    digest = (sibling.lfs.sha256 if sibling.lfs else sibling.blobId) or ""
    size_bytes = (sibling.lfs.size if sibling.lfs else sibling.size) or 0
    return ModelFile(
        name=sibling.rfilename, size_bytes=max(0, size_bytes), digest=digest if is_digest(digest) else ""
    )


def wanted(
    source: HubSource, listing: Listing, left_s: LeftS = no_end, rests: Rests | None = None
) -> tuple[ModelFile, ...]:
    """What an engine needs of the resolved commit, small files first: a broken model is found before its weights.

    Descriptions are read from the hub for that, and an archive's table of contents; no weights are touched. Raises
    CacheError.
    """
    pinned = replace(source, revision=listing.commit)
    files = HubFiles(pinned, listing.files, HubReads(pinned, left_s=left_s, rests=rests))
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
    if too_much := excess(chosen):
        raise HubUnreachableError(
            f"{pinned.at(listing.commit)}: {endpoint(source)} lists {too_much}; check that HF_ENDPOINT is a hub"
        )
    if contents.archive:  # judged as for its facts, so that pickles are refused before they come
        files.archive(contents.archive)
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
    files = HubFiles(pinned, listing.files, HubReads(pinned))
    return read_facts(files, source=pinned.at(listing.commit), fingerprint=listing.commit)
