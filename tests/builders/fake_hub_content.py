"""What the fake hub has: repositories, their files and the digests of these, and the faults that it is to make."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

Content = bytes | Path
"""A file's bytes, or where they lie: files on disk are sent by sendfile."""

ANSWER_FAULTS = ("rate_limit", "rate_limit_after", "burst", "loop", "dns", "tls", "nowhere", "gone")
"""Of the answer to a GET of a file: 429 without and with Retry-After (of `value` s), a 5xx, a redirect to itself, to
a name that is none, to https where none is spoken, to an address that is none, and 404 as if the revision was
deleted."""
BODY_FAULTS = (
    "cut",  # reset at byte `at`
    "stall",  # nothing more after byte `at`; the connection stays
    "truncated_right",  # the file ends at byte `at`, and all headers say so
    "truncated_wrong",  # the connection ends in order at byte `at`, before what Content-Length promised
    "flip",  # one bit of byte `at`
    "other_content",  # other bytes of the same length
    "revision",  # cut at byte `at`; the next `value` GETs have another commit's bytes (0: all from then on)
    "wrong_etag",
    "range_ignored",
    "drip",  # a byte every `value` seconds after byte `at`
    "longer",  # `value` bytes more, without a Content-Length
    "stall_chunked",  # as `stall` and `drip`, in a chunked body; each byte that drips is a chunk
    "drip_chunked",
)
FAULTS = (*ANSWER_FAULTS, *BODY_FAULTS)
LISTING = "/api"
"""As a fault's `name`: the listing of files, of which only ANSWER_FAULTS make sense."""


@dataclass(frozen=True)
class Fault:
    kind: str
    name: str = ""
    """Of the file, or LISTING; empty: of any file."""
    at: int = 0
    """Byte of the file. It happens there also in an answer to a range, if that byte is in it, else at its start."""
    times: int = 1
    """GETs that meet it; -1: all."""
    value: float = 0.0


@dataclass
class Repo:
    """`files` are those of `commit`, where `main` points to. `older` has other commits."""

    files: dict[str, Content]
    commit: str
    older: dict[str, dict[str, Content]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    """Without the hub's token it does not exist, as the real one says."""
    gated: str = ""
    """`files`: anybody may list, nobody may fetch; `listing`: nobody may do either."""
    listed_bytes: dict[str, int] = field(default_factory=dict)
    """Sizes in the listing that are not the true ones."""

    def at(self, revision: str) -> tuple[str, dict[str, Content]] | None:
        commit = self.refs.get(revision, self.commit if revision == "main" else revision)
        files = self.files if commit == self.commit else self.older.get(commit)
        return None if files is None else (commit, files)


def commit_of(repo: str, files: Mapping[str, Content]) -> str:
    """Deterministic: the same files of the same repository are the same commit."""
    parts = [repo, *(f"{name} {blob_id(files[name])}" for name in sorted(files))]
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def is_lfs(name: str, content: Content) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt2")) or size_of(content) > 10 * 2**20


def size_of(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def sha256(content: Content) -> str:
    return _hashed(content, "sha256")


def blob_id(content: Content) -> str:
    """Git's name of it."""
    return _hashed(content, "git")


def other_bytes(content: Content) -> bytes:
    """As long, and different in every byte."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return data.translate(bytes(value ^ 0x5A for value in range(256)))


def _hashed(content: Content, kind: str) -> str:
    if isinstance(content, bytes):
        return _hash_of(content, kind)
    stat = content.stat()
    return _hash_of_file(content, stat.st_size, stat.st_mtime_ns, kind)


@lru_cache(maxsize=4096)
def _hash_of_file(path: Path, size: int, modified_ns: int, kind: str) -> str:
    hashed = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            hashed.update(block)
    return hashed.hexdigest()


def _hash_of(data: bytes, kind: str) -> str:
    return (hashlib.sha256(data) if kind == "sha256" else hashlib.sha1(b"blob %d\0" % len(data) + data)).hexdigest()
