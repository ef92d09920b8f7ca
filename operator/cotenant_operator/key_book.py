"""The files of API keys in a state directory: the only reader and writer of both.

    <state>/keys.json         {"keys": [CreatedKey…]}, 0600; written by `key create`, `key revoke`, `chat`, `embed`
    <state>/key-sources.json  [KeySource…], 0600; written by `up`: where the keys of the YAML files stand

The commands take turns by a lock on the directory itself, which the kernel drops when its holder ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cotenant_operator.created_keys import CreatedKey, KeySource, hash_of, new_key
from cotenant_operator.failure import Failure
from cotenant_operator.state_dir import write_private

KEYS_FILE = "keys.json"
SOURCES_FILE = "key-sources.json"


class KeysError(Failure):
    """The keys cannot be read, changed or found; the message says what to do."""


class _Document(msgspec.Struct, frozen=True):
    keys: tuple[CreatedKey, ...] = ()


class KeyBook:
    """`keys.json` of one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.path = state / KEYS_FILE

    def read(self) -> tuple[CreatedKey, ...]:
        """All of them, also those that have expired. Raises KeysError."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Document).keys
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeysError(f"{self.path} cannot be read: {error.strerror}; run as the user of `up`") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise KeysError(
                f"{self.path} is damaged; repair it, or remove it, which revokes every key that was created"
            ) from None

    def create(
        self, tenant: str, *, now_s: float, lives_s: float | None = None, made_by: str = "key create"
    ) -> tuple[str, CreatedKey]:
        """A new key, which is kept nowhere, and what is kept of it. Raises KeysError."""
        key = new_key()
        made = CreatedKey(
            tenant=tenant,
            sha256=hash_of(key),
            created=now_s,
            expires=None if lives_s is None else now_s + lives_s,
            made_by=made_by,
        )
        with self._changing():
            self._write((*(known for known in self.read() if known.lives(now_s)), made))
        return key, made

    def revoke(self, id: str) -> CreatedKey | None:
        """Take it away; None when there is none. Raises KeysError."""
        with self._changing():
            known = self.read()
            found = next((key for key in known if key.id == id), None)
            if found is not None:
                self._write(tuple(key for key in known if key.sha256 != found.sha256))
        return found

    def extend(self, made: CreatedKey, expires: float) -> CreatedKey | None:
        """Let a key live until `expires`; None when it is there no more. Raises KeysError."""
        longer = msgspec.structs.replace(made, expires=expires)
        with self._changing():
            known = self.read()
            if all(key.sha256 != made.sha256 for key in known):
                return None
            self._write([longer if key.sha256 == made.sha256 else key for key in known])
        return longer

    def _write(self, keys: Sequence[CreatedKey]) -> None:
        write_private(self.path, msgspec.json.encode(_Document(tuple(keys))) + b"\n")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One command at a time reads and writes."""
        try:
            folder = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise KeysError(f"{self.state} cannot be opened: {error.strerror}; run as the user of `up`") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise KeysError(
                f"{self.path} cannot be written: {error.strerror}; run as the user of `up`, with room on the disk"
            ) from None
        finally:
            os.close(folder)


def read_sources(state: Path) -> tuple[KeySource, ...] | None:
    """Where the keys of the files stand, as the last `up` saw them; None when none has written it."""
    try:
        return msgspec.json.decode((state / SOURCES_FILE).read_bytes(), type=tuple[KeySource, ...])
    except (OSError, msgspec.MsgspecError):
        return None


def write_sources(state: Path, sources: Sequence[KeySource]) -> None:
    """Written only when it differs."""
    path, data = state / SOURCES_FILE, msgspec.json.encode(sources) + b"\n"
    if not path.exists() or path.read_bytes() != data:
        write_private(path, data)
