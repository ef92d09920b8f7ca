"""The files of a command's folder, each whole or not at all. A full disk costs those that have no room, no others."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path


class UnwrittenError(Exception):
    """Files that could not be written; `str()` has a line for each. What was measured has been told all the same."""


def write_each(writers: Mapping[Path, Callable[[Path], None]]) -> dict[Path, str]:
    """In the order given. File → why it could not be written, and what to do."""
    unwritten: dict[Path, str] = {}
    for path, write in writers.items():
        try:
            write(path)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # a half of it would be taken for the whole
            unwritten[path] = (
                f"{path} could not be written: {error.strerror or error}; make room, or give another folder with "
                "--out, and run it again"
            )
    return unwritten


def refuse_unwritten(unwritten: Mapping[Path, str]) -> None:
    """Raises UnwrittenError where there are any."""
    if unwritten:
        raise UnwrittenError("\n".join(unwritten.values()))


def report_at(page: Path, unwritten: Mapping[Path, str]) -> str:
    """For a person, at the end."""
    return f"report: {page}" if page not in unwritten else "no report could be written"
