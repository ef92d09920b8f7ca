"""Who lives and who fetches, by locks that the kernel lets go when a process ends, however it ends.

No pid and no clock decides anything here: pids come back, containers see others' differently, and clocks jump. A lock
belongs to an open file, so a process must not fork while it holds one and go on in the child.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from cotenant_cache.contract import Progress
from cotenant_cache.disk import CONTROL

_KEPT_BYTES = 4096
"""What a holder keeps takes a multiple of it."""
_PROGRESS = msgspec.json.Decoder(Progress)


class Holder:
    """An instance, for as long as it lives."""

    def __init__(self, id_: str, path: Path, descriptor: int) -> None:
        self.id = id_
        self._path, self._descriptor = path, descriptor
        self._room = 0

    @classmethod
    def enter(cls, root: Path) -> Self:
        """Raises OSError."""
        while True:
            id_ = secrets.token_hex(8)
            path = _holders(root) / id_
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _names(path, descriptor):
                return cls(id_, path, descriptor)
            os.close(descriptor)  # taken for dead, and swept, before it was locked

    def keep(self, said: bytes) -> None:
        """In its file, for as long as it lives: after a kill nobody reads it. Replaces what was there.

        In one write, of spaces behind it too, and into room that is there: a reader sees the one or the other, and
        so it stays where the disk is full. Raises OSError.
        """
        room = max(self._room, -(-len(said) // _KEPT_BYTES) * _KEPT_BYTES)
        if room > self._room:
            os.posix_fallocate(self._descriptor, 0, room)
            self._room = room
        os.pwrite(self._descriptor, said.ljust(room), 0)

    def leave(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def living(root: Path, ids: Iterable[str]) -> frozenset[str]:
    """Which of these instances live."""
    return frozenset(id_ for id_ in ids if _is_locked(_holders(root) / id_))


def all_living(root: Path) -> frozenset[str]:
    """Every instance of the volume that lives."""
    return living(root, os.listdir(_holders(root)))


def kept_by(root: Path, id_: str) -> bytes:
    """What an instance has last kept; empty: nothing, or it has left."""
    try:
        return (_holders(root) / id_).read_bytes().strip(b" \0")
    except FileNotFoundError:
        return b""


def sweep_holders(root: Path) -> None:
    """Takes away the files of dead instances."""
    for name in os.listdir(_holders(root)):
        path = _holders(root) / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


class Flight:
    """The right to fetch, or to check in the background, of one at a time.

    Its file stays: removing it would give two processes two locks.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def try_enter(cls, root: Path, key: str) -> Self | None:
        path = _flights(root) / key
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # of a full disk: it can be fetched without a name for people
            os.pwrite(descriptor, _own_name().encode(), 0)
        return cls(path, descriptor)

    def say(self, progress: Progress) -> None:
        """To everyone who waits. Raises OSError, on a full disk as well."""
        self.beat()
        made = self._path.with_name(f"{self._path.name}.saying")
        made.write_bytes(msgspec.json.encode(progress))
        os.replace(made, self._path.with_name(f"{self._path.name}.progress"))

    def beat(self) -> None:
        """It lives, and has nothing new to say. Raises OSError; a full disk is no reason."""
        os.utime(self._descriptor)

    def leave(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Heard:
    """What can be seen of whoever holds a flight; another one after each word and each beat of it."""

    who: str
    """For people: its program, process and machine; empty: not known."""
    beat: int
    """Time of the lock's file, in ns; says nothing but whether it is the same as before."""


def flight_heard(root: Path, key: str) -> Heard:
    """Raises OSError."""
    path = _flights(root) / key
    return Heard(path.read_text(errors="replace"), path.stat().st_mtime_ns)


def flight_progress(root: Path, key: str) -> Progress | None:
    """What the last that fetched has said, over now or not."""
    try:
        return _PROGRESS.decode((_flights(root) / f"{key}.progress").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def flight_path(root: Path, key: str) -> Path:
    """Of the lock, which whoever holds the flight has open."""
    return _flights(root) / key


def flight_taken(root: Path, key: str) -> bool:
    return _is_locked(_flights(root) / key)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _names(path: Path, descriptor: int) -> bool:
    """Whether the file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _own_name() -> str:
    return f"{Path('/proc/self/comm').read_text().strip()}, process {os.getpid()} on {socket.gethostname()}"


def _holders(root: Path) -> Path:
    return root / CONTROL / "holders"


def _flights(root: Path) -> Path:
    return root / CONTROL / "flights"
