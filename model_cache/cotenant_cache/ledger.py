"""The ledger of a volume: SQLite, for any number of processes. It is a cache of what the disk says, plus what the
disk cannot say (promised bytes, leases, pins, uses). A damaged one is set aside and an empty one made.

Commits are durable (rollback journal, fsync). A process that dies in the middle of a transaction has done nothing.
"""

import errno
import fcntl
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Self
from urllib.parse import quote

from cotenant_cache.contract import FORMAT
from cotenant_cache.errors import CacheError, DiskFullError, NewerFormatError, VolumeError
from cotenant_cache.ledger_blobs import Blob
from cotenant_cache.ledger_claims import Kept, Lease
from cotenant_cache.ledger_format import MIGRATIONS
from cotenant_cache.ledger_models import DamagedError, LedgerModel
from cotenant_cache.ledger_records import Tx

__all__ = ["Blob", "Lease", "Ledger", "LedgerModel", "Tx"]

assert len(MIGRATIONS) == FORMAT

BUSY_S = 30.0
"""How long a transaction of another process is waited for."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DAMAGE_WORDS = ("decode to UTF-8", "unsupported file format")
"""Where SQLite or Python's module have no code of its own for it."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Ledger:
    """One process's way to the ledger; threads may share it, forks may not."""

    def __init__(
        self,
        path: Path,
        holder: str,
        clock: Callable[[], float],
        busy_s: float,
        migrations: Sequence[Sequence[str]],
    ) -> None:
        self.path = path
        self.holder = holder
        self.rebuilt = False
        """Nobody has called `reconciled()` since an empty ledger was made, so it may lack what the disk has."""
        self._clock, self._busy_s, self._migrations = clock, busy_s, migrations
        self._lock = threading.Lock()
        self._kept = Kept()
        self._epoch = ""
        self._connection = self._connected()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        holder: str,
        clock: Callable[[], float] = time.time,
        busy_s: float = BUSY_S,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
    ) -> Self:
        """Makes it where there is none, and brings an older format forward.

        Raises NewerFormatError (nothing is changed then), DiskFullError, VolumeError.
        """
        with _legible(path):
            return cls(path, holder, clock, busy_s, migrations)

    def close(self) -> None:
        """Leases and promised bytes stay, as long as the holder lives. A transaction of another thread ends first."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """All of it or nothing, and alone: readers too. Whoever frees space does so on the disk first, then here.

        Raises DiskFullError, VolumeError, NewerFormatError (a newer cotenant took the volume over meanwhile). After
        a VolumeError because of damage the next transaction finds an empty ledger, and `rebuilt`.
        """
        with self._lock, _legible(self.path), self._damage_set_aside():
            self._begin()
            tx = Tx(self._connection, self.holder, self._clock, self._kept.copy())
            try:
                yield tx
                tx.settle()
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._kept = tx.kept
            self.rebuilt = self.rebuilt and not tx.was_reconciled
            self._write_again_if_lost()

    def _write_again_if_lost(self) -> None:
        """When somebody took the file away in the middle of a transaction, what this process has goes into the one
        that was made meanwhile; if that fails, then with the next transaction."""
        if _inode(self.path) == self._inode:
            return
        with suppress(CacheError, sqlite3.Error, OSError):
            self._begin()
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._connection.execute("ROLLBACK")

    def _begin(self) -> None:
        """Raises NewerFormatError."""
        while True:
            if _inode(self.path) != self._inode:
                self._connection.close()
                self._connection = self._connected()
            self._connection.execute("BEGIN IMMEDIATE")
            if _inode(self.path) == self._inode:
                break
            self._connection.execute("ROLLBACK")
        try:
            _refuse_newer(self._connection, self.path, len(self._migrations))
            self._notice_new_epoch()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def _notice_new_epoch(self) -> None:
        """An empty ledger was made while this one was open: what only this process knows is written into it."""
        meta = dict(self._connection.execute("SELECT name, value FROM meta"))
        self.rebuilt = not meta["reconciled"]
        if self._epoch not in ("", meta["epoch"]):
            self._kept.write_to(self._connection.executemany, self.holder)
        self._epoch = meta["epoch"]

    def _connected(self) -> sqlite3.Connection:
        """Checked and of this format. Raises NewerFormatError, sqlite3.Error, OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path, self._busy_s):
            try:
                connection = self._checked()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: a name in the schema
                if not _is_damage(error):
                    raise
                _set_aside(self.path)
                connection = self._checked()
            self._inode = _inode(self.path)
        self.rebuilt = not connection.execute("SELECT value FROM meta WHERE name = 'reconciled'").fetchone()[0]
        return connection

    def _checked(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rwc",
            uri=True,
            timeout=self._busy_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _refuse_newer(connection, self.path, len(self._migrations))
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, self._migrations)
            _refuse_damage(connection, self._migrations)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _damage_set_aside(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            with _alone(self.path, self._busy_s):
                if _inode(self.path) == self._inode:
                    _set_aside(self.path)
            self.rebuilt = True
            raise


def _refuse_newer(connection: sqlite3.Connection, path: Path, known: int) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > known:
        raise NewerFormatError(
            f"{path} has format {found}, this cotenant knows formats up to {known} and has changed nothing; "
            "use the newer cotenant that wrote it, or give this one a folder of its own"
        )


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """All steps in one transaction: a ledger is of the format before or of this one."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise DamagedError("tables without a format")
        for step in migrations[found:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _refuse_damage(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Raises sqlite3.DatabaseError that is damage."""
    if _schema(connection) != _schema_of(tuple(tuple(step) for step in migrations)):
        raise DamagedError("its tables are not as its format has them")
    if not {"epoch", "reconciled"} <= set(dict(connection.execute("SELECT name, value FROM meta"))):
        raise DamagedError("rows are missing")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedError(verdict)


@cache
def _schema_of(migrations: tuple[tuple[str, ...], ...]) -> frozenset[str]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in itertools.chain(*migrations):
            connection.execute(statement)
        return _schema(connection)


def _schema(connection: sqlite3.Connection) -> frozenset[str]:
    """Statements that made it, spaces aside."""
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return frozenset(" ".join(sql.split()) for (sql,) in rows)


def _is_damage(error: Exception) -> bool:
    return (
        _code(error) in _DAMAGED
        or isinstance(error, UnicodeDecodeError)
        or any(words in str(error) for words in _DAMAGE_WORDS)
    )


def _code(error: Exception) -> int:
    """The primary one; 0 for errors of Python's own module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _set_aside(path: Path) -> None:
    """The last damaged one is kept to look at. Its journal goes first, so that no new file is rolled back by it."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.damaged{suffix}")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


@contextmanager
def _alone(path: Path, most_s: float) -> Iterator[None]:
    """One process at a time makes, migrates or sets aside. Raises VolumeError after `most_s`."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + most_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise VolumeError(_locked(path)) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _locked(path: Path) -> str:
    return (
        f"{path} stayed locked by another process; find it with `fuser -v {path}`, "
        "see whether it hangs on a slow disk, and try again"
    )


@contextmanager
def _legible(path: Path) -> Iterator[None]:
    """What SQLite and the operating system say → CacheError with the next step. Our own mistakes stay as they are."""
    try:
        yield
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(path.parent)):
            raise
        raise _refused_by_system(path, error) from None
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        told = _refused_by_sqlite(path, error)
        if told is None:
            raise
        raise told from None


def _refused_by_system(path: Path, error: OSError) -> CacheError:
    if error.errno in _FULL:
        return DiskFullError(_no_space(path))
    return VolumeError(
        f"{error.filename}: {error.strerror}; let this user write below {path.parent}, or use another folder"
    )


def _refused_by_sqlite(path: Path, error: sqlite3.DatabaseError) -> CacheError | None:
    if _is_damage(error):
        return VolumeError(
            f"{path} was damaged ({error}) and is set aside as {path.name}.damaged; "
            "try again: it is made anew from what is on the disk"
        )
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return DiskFullError(_no_space(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return VolumeError(_locked(path))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return VolumeError(f"{path} cannot be written ({error}); let this user write below {path.parent}")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOLFS | sqlite3.SQLITE_PROTOCOL:
            return VolumeError(f"{path}: the disk reports an error ({error}); check the disk and the kernel's log")
    return None


def _no_space(path: Path) -> str:
    return f"{path} cannot be written: the disk is full; make room on the disk that holds {path.parent.parent}"
