"""A model's files as the hub has them: small ones whole, headers of the others by range. No tensor is read."""

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cotenant_cache.archive import archive_bytes
from cotenant_cache.contract import ModelFile
from cotenant_cache.digests import is_digest, new_hash
from cotenant_cache.errors import CorruptWeightsError, FileMissingError, HubUnreachableError
from cotenant_cache.headers import PREFIX_BYTES, WeightsHeader, header_length, parse_header
from cotenant_cache.hub_access import endpoint
from cotenant_cache.hub_reads import HubReads
from cotenant_cache.kinds import PLAIN_NAME
from cotenant_cache.listings import excess
from cotenant_cache.reading import MAX_JSON_BYTES
from cotenant_cache.source import HubSource

_HEADERS_AT_ONCE = 4
_RANGE_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class HubFiles:
    """ModelFiles of a repository at one commit."""

    repo: HubSource
    files: Mapping[str, ModelFile]
    reads: HubReads

    @property
    def source(self) -> str:
        return self.repo.at(self.repo.revision)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in self.files if PLAIN_NAME.fullmatch(name))

    def json(self, name: str) -> Any:
        if name not in self.files:
            raise FileMissingError(f"{self.source}: has no {name}; ask the owner of the model")
        if self.files[name].size_bytes > MAX_JSON_BYTES:
            raise CorruptWeightsError(
                f"{self.source}: {name} has {self.files[name].size_bytes} bytes, at most {MAX_JSON_BYTES} are read; "
                "ask the owner of the model"
            )
        content = self.reads.file(name, MAX_JSON_BYTES)
        self._check(name, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise CorruptWeightsError(f"{self.source}: {name} is not JSON; ask the owner of the model") from None

    def _check(self, name: str, content: bytes) -> None:
        """What decides which files are fetched is what the listing says, too."""
        listed = self.files[name]
        if not is_digest(listed.digest):
            return
        found = new_hash(listed.digest, len(content))
        found.update(content)
        if found.hexdigest() != listed.digest:
            raise CorruptWeightsError(
                f"{self.source}: {name} is not what {endpoint(self.repo)} lists "
                f"(digest {listed.digest[:12]}…); try again"
            )

    def headers(self, names: Sequence[str]) -> list[tuple[WeightsHeader, int]]:
        if too_much := excess([self.files[name] for name in names]):
            raise HubUnreachableError(
                f"{self.source}: {endpoint(self.repo)} lists weights of {too_much}; check that HF_ENDPOINT is a hub"
            )
        self.reads.allow(len(names))
        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            headers = pool.map(self._header, names)
            return [(header, self.files[name].size_bytes) for name, header in zip(names, headers, strict=True)]

    def archive(self, name: str) -> tuple[int, int]:
        with self._open(name) as stream:
            return archive_bytes(stream, file=f"{self.source}: {name}"), self.files[name].size_bytes

    def _header(self, name: str) -> WeightsHeader:
        file, size = f"{self.source}: {name}", self.files[name].size_bytes
        with self._open(name) as stream:
            length = header_length(stream.read(PREFIX_BYTES), file=file, file_bytes=size)
            return parse_header(stream.read(length), file=file, file_bytes=size)

    def _open(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(_RemoteFile(self.reads, name, self.files[name].size_bytes), _RANGE_BYTES)


class _RemoteFile(io.RawIOBase):
    """A file of the hub as a stream: what is read is asked for by range. Raises CacheError."""

    def __init__(self, reads: HubReads, name: str, size: int) -> None:
        super().__init__()
        self._reads, self._name, self._size, self._at = reads, name, size, 0

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
        buffer[:count] = self._reads.part(self._name, self._at, self._at + count)
        self._at += count
        return count
