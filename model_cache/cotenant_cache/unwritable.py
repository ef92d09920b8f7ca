"""A model on a volume that cannot be written: nothing can be leased, noted or set aside there.

So it is served only whole, and only with bytes that are known to be right: the ledger says so, which is read and
nothing else, or they are read here and have the digest that names their blob.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from cotenant_cache.contract import FORMAT
from cotenant_cache.errors import CorruptWeightsError, FileMissingError, ModelNotFoundError, VolumeError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.folders import folder_facts
from cotenant_cache.found import CONTROL, names_in
from cotenant_cache.kinds import kind_of
from cotenant_cache.ledger_claims import Kept
from cotenant_cache.ledger_records import Tx
from cotenant_cache.source import HubSource
from cotenant_cache.store import volume_errors
from cotenant_cache.verifying import look

_BUSY_S = 5.0
"""Of the ledger; who waits longer for it than reading the files takes has won nothing."""
_NEXT = "let this user write there, then it is fetched again, or remove the file"


@dataclass(frozen=True, slots=True)
class _Unsure:
    """A name that nothing is known of."""

    path: Path
    digest: str
    """Empty: there is none."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What a ledger knows of one model."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Name → digest of all that it has, as its hub listed it. Empty: no hub was asked."""
    verified: Mapping[str, int] = field(default_factory=dict)
    """Digest → bytes of the blobs that were found right."""


def facts_as_it_lies(
    source: HubSource, folder: Path, root: Path, progress: Callable[[int, int], None]
) -> ModelFacts | None:
    """Of the snapshot `folder` of the commit that `source` names; None when it is not whole.

    `progress(done_bytes, total_bytes)` is of what is read against its digest. Raises CorruptWeightsError for a file
    that is not what its digest says, VolumeError for one without a digest or that the disk cannot read, and whatever
    a model's facts are refused for.
    """
    names = {name: digest for name, digest in names_in(folder).items() if _is_read(folder / name)}
    recorded = _recorded(root / CONTROL / "ledger.sqlite", source.repo, source.revision)
    if not recorded.files.items() <= names.items() or not all(os.path.exists(folder / name) for name in names):
        return None
    blobs = folder.parent.parent / "blobs"
    with volume_errors(root):
        unsure = [
            _Unsure(folder / name, digest, (folder / name).stat().st_size)
            for name, digest in names.items()
            if not _known(folder / name, blobs / digest, recorded)
        ]
        _check(unsure, progress)
    try:
        return folder_facts(folder, source=source.at(source.revision), fingerprint=source.revision)
    except (ModelNotFoundError, FileMissingError):
        return None


def _recorded(path: Path, repo: str, commit: str) -> _Recorded:
    """Without a write. A ledger that cannot be read, or is of another format, says nothing."""
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            if connection.execute("PRAGMA user_version").fetchone() != (FORMAT,):
                return _Recorded()
            tx = Tx(connection, "", time.time, Kept())
            model, blobs = tx.model(repo, commit), tx.blobs(repo)
    except (sqlite3.Error, UnicodeDecodeError):
        return _Recorded()
    return _Recorded(
        {file.name: file.digest for file in model.files} if model and not model.found else {},
        {blob.digest: blob.size_bytes for blob in blobs if blob.verified},
    )


def _is_read(path: Path) -> bool:
    """Whether an engine may read it. Code and texts that other tools put there are left to them."""
    return kind_of(path.name) in ("weights", "description") or path.is_dir()


def _known(path: Path, blob: Path, recorded: _Recorded) -> bool:
    """Whether this name leads to this blob, and the ledger knows it as right. Raises OSError."""
    size = recorded.verified.get(blob.name)
    return size is not None and path.resolve() == blob.resolve() and path.stat().st_size == size


def _check(unsure: Sequence[_Unsure], progress: Callable[[int, int], None]) -> None:
    """Raises CorruptWeightsError, VolumeError, OSError."""
    done, total = 0, sum(file.size_bytes for file in unsure)

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(min(done, total), total)

    for file in unsure:
        if not file.digest:
            raise VolumeError(f"{file.path} is no link to a blob, so no digest says what it should be; {_NEXT}")
        looked = look(file.path, file.digest, read)
        if looked is not None and looked.digest != file.digest:
            raise CorruptWeightsError(
                f"{file.path} is not what its digest says ({file.digest[:12]}…), and is neither set aside nor "
                f"fetched again, as the volume cannot be written; {_NEXT}"
            )
