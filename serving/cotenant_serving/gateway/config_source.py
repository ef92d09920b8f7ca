"""Where a configuration stands, and following it: read again when it changes.

What cannot be used never replaces what could: revoking by accident is as bad as failing open.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cotenant_serving.file_changes import signature_of
from cotenant_serving.gateway.config import ConfigError, Directory, parse
from cotenant_serving.packed_config import unpacked
from cotenant_serving.tokens import shown

log = logging.getLogger("cotenant.gateway")

POLL_S = 0.2
_DIGEST_BYTES = 32
_NOTHING = bytes(_DIGEST_BYTES)


class Source(Protocol):
    name: str
    """For people."""

    def changed(self) -> bytes | None:
        """The content, if it is another one than was given last; None also while there is none to read."""


class FileSource:
    """A file, packed or not, which its writers replace by rename."""

    def __init__(self, path: Path) -> None:
        self.name = f"configuration file {path}"
        self._path = path
        self._seen: object = self  # as nothing that is ever there

    def changed(self) -> bytes | None:
        signature = signature_of(self._path)
        if signature == self._seen:
            return None
        self._seen = signature
        try:
            return unpacked(self._path.read_bytes())
        except OSError as problem:
            log.error("%s cannot be read, keeping what is loaded: %s", self.name, problem.strerror)
        except ValueError as problem:
            log.error("%s is not used, keeping what is loaded: %s", self.name, problem)
        return None


class SharedSource:
    """Memory that processes share: what one of them writes the others read, whatever the disk does.

    A SHA-256 of the content (32 bytes, zeros while it is written), then the content.
    """

    name = "configuration"

    def __init__(self, file: int) -> None:
        """`file` stays the caller's."""
        self._file = file
        self._seen = _NOTHING

    @classmethod
    def create(cls) -> "SharedSource":
        return cls(os.memfd_create("cotenant-gateway-config"))

    def fileno(self) -> int:
        return self._file

    def write(self, content: bytes) -> None:
        """By one process only. Raises OSError when memory is short; the content before is gone then."""
        os.pwrite(self._file, _NOTHING, 0)
        os.ftruncate(self._file, _DIGEST_BYTES + len(content))
        os.pwrite(self._file, content, _DIGEST_BYTES)
        os.pwrite(self._file, sha256(content).digest(), 0)

    def changed(self) -> bytes | None:
        digest = os.pread(self._file, _DIGEST_BYTES, 0)
        if digest in (self._seen, _NOTHING, b""):
            return None
        content = os.pread(self._file, os.fstat(self._file).st_size, _DIGEST_BYTES)
        if sha256(content).digest() != digest:
            return None  # the next one is just written
        self._seen = digest
        return content


class Followed:
    """What a source says, with the pool token that goes with it. What cannot be read leaves each as it was."""

    def __init__(self, source: Source, token_file: Path | None = None) -> None:
        """`token_file` wins over the one that the configuration names."""
        self._source = source
        self._token_file = token_file
        self._token_seen: tuple[str, object] = ("", None)
        """Name and signature of its file."""
        self.directory: Directory | None = None
        self.pool_token = ""

    def poll(self) -> bool:
        """Reads what changed since the last call. True when `directory` is new."""
        content = self._source.changed()
        changed = content is not None and self._load(content)
        self._poll_token()
        return changed

    async def watch(self, on_change: Callable[[Directory], None]) -> None:
        """Polls for ever; a look costs one system call, five times a second."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.poll() and self.directory is not None:
                on_change(self.directory)

    def _load(self, content: bytes) -> bool:
        try:
            self.directory = parse(content)
        except ConfigError as problem:
            log.error("%s is not used (keeping what is loaded): %s", self._source.name, problem)
            return False
        config = self.directory.config
        log.info(
            "configuration generation %d: %d tenants, %d models, %d gateways",
            config.generation,
            len(config.tenants),
            len(config.models),
            config.gateways,
        )
        return True

    def _poll_token(self) -> None:
        named = self.directory.config.pool_token_file if self.directory else ""
        name = str(self._token_file) if self._token_file else named
        seen = (name, signature_of(Path(name)) if name else None)
        if seen == self._token_seen:
            return
        token = read_token(Path(name)) if name else ""
        if token or name != self._token_seen[0]:
            self.pool_token = token
        self._token_seen = seen


def read_token(path: Path) -> str:
    """The one to show; empty when it cannot be read."""
    try:
        return shown(path.read_text())
    except (OSError, UnicodeDecodeError) as problem:
        # The error of a bad decode quotes bytes of the file: only its kind is logged.
        log.error("pool token file %s cannot be read: %s", path, type(problem).__name__)
        return ""
