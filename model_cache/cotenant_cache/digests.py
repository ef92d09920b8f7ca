"""The two digests by which a hub names content: SHA-256 of the bytes, and git's SHA-1 of small files. Pure."""

import hashlib
import re
from typing import Protocol

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def is_digest(text: str) -> bool:
    """Whether it is one, and so a safe name of a file, too."""
    return _DIGEST.fullmatch(text) is not None


def new_hash(digest: str, size_bytes: int) -> Hash:
    """The hash whose hex is to become `digest`, before the first of the file's `size_bytes` bytes."""
    if len(digest) == 64:
        return hashlib.sha256()
    # Git's names are no secrets; who can make two files of one SHA-1 can only replace a small file of their own.
    hashed = hashlib.sha1(usedforsecurity=False)
    hashed.update(b"blob %d\0" % size_bytes)
    return hashed
