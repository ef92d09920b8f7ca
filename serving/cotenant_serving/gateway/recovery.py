"""What dead workers left in their journals becomes usage records: one per request, unless it has one already.

A worker puts a request's line in its journal before it takes the request out, and writes lines before it takes those
out. So a kill in between leaves both: what was written since the journal's last sign of life is searched for its
requests first.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from cotenant_serving.gateway import journal
from cotenant_serving.gateway.board import Count
from cotenant_serving.gateway.usage import UsageRecord
from cotenant_serving.gateway.usage_file import UsageFile

log = logging.getLogger("cotenant.gateway")

OUTCOME = "gateway_lost"


class _Line(msgspec.Struct):
    """What is read of a usage line; it must be whole JSON all the same."""

    request_id: str


def lost_lines(contents: journal.Contents, written: Collection[str]) -> list[bytes]:
    """The lines that are missing; `written`: ids of requests that have theirs. Pure."""
    known = {*written}
    lines = []
    for line in contents.lines:
        known.add(found := request_id(line))
        if found not in written:
            lines.append(line)
    return lines + [_record(one, contents.alive).line() for one in contents.requests if one.request_id not in known]


def _record(one: journal.InFlight, alive: float) -> UsageRecord:
    """Counted as if the client had left when its worker died: by estimate, and only if an engine had it."""
    ended = max(alive, one.began)
    return UsageRecord(
        time=ended,
        tenant=one.tenant,
        model=one.model,
        request_id=one.request_id,
        prompt_tokens=one.prompt_tokens if one.sent else 0,
        completion_tokens=one.events,
        estimated=one.sent,
        outcome=OUTCOME,
        status=200 if one.events else 0,
        duration_s=round(ended - one.began, 6),
        time_to_first_byte_s=one.first_byte_s,
    )


def request_id(line: bytes) -> str:
    """Of a usage line; empty when it is torn, for then its request has no record yet."""
    try:
        return msgspec.json.decode(line, type=_Line).request_id
    except msgspec.MsgspecError:
        return ""


def written_since(path: Path, size: int, wanted: Collection[str]) -> set[str]:
    """Those of the requests `wanted` whose lines stand behind the first `size` bytes of the usage file, or anywhere
    in it, if it was cut since then. Nobody's, if it was moved away.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(size if size <= os.fstat(file.fileno()).st_size else 0)
        return {found for line in file if (found := request_id(line)) in wanted}
    return set()


class Recovery:
    """The only reader of dead workers' journals. `recovered` counts the records that it writes."""

    def __init__(self, folder: Path, usage: UsageFile, recovered: Count) -> None:
        self._folder, self._usage, self._recovered = folder, usage, recovered
        self._complained = ""

    def prepare(self) -> None:
        """Before the first worker starts. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # Of workers that were killed before they began to serve, or while they wrote their table.
        for path in (*self._folder.glob("*.new"), *self._folder.parent.glob("table.json.*.tmp")):
            path.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether a worker lives whose journal is here."""
        for path in self._journals():
            with _opened(path) as file:
                if file is not None and not _locked(file):
                    return True
        return False

    def run(self) -> None:
        """Settles the journals of dead processes. Never raises: what cannot be written now is left for later."""
        try:
            for path in self._journals():
                self._settle(path)
            self._complained = ""
        except OSError as problem:
            if str(problem) != self._complained:
                log.error("usage of killed workers cannot be written, it is tried again: %s", problem)
            self._complained = str(problem)

    def _journals(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{journal.SUFFIX}"))

    def _settle(self, path: Path) -> None:
        with _opened(path) as file:
            if file is not None and _locked(file):
                self._write(path)
                path.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        try:
            contents = journal.read(path.read_bytes())
        except journal.JournalError as problem:
            log.error("%s is dropped: %s", path, problem)
            return
        if not contents.requests and not contents.lines:
            return
        wanted = {one.request_id for one in contents.requests} | {request_id(line) for line in contents.lines}
        lines = lost_lines(contents, written_since(self._usage.path, contents.usage_bytes, wanted))
        left = b"".join(lines)
        while left:
            written = self._usage.append(left, wait_s=0)  # the supervisor has others to look after; it comes again
            self._recovered.add(left.count(b"\n", 0, written))
            left = left[written:]
        log.warning("%s: %d usage records of a dead worker are recovered", path.name, len(lines))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """None when its worker has ended well meanwhile, and taken it away."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """False while the process lives that the journal belongs to."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
