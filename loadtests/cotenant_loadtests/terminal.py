"""Lines and tables for people: coloured on a terminal, plain anywhere else; nothing in them steers a terminal.

Where nobody reads stdout any more that is a BrokenPipeError; that nobody reads stderr never ends a measurement.
"""

import errno
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

Rows = Sequence[Sequence[str]]
_FOLDED = 9
"""The least that text is folded to, in characters."""
_STYLES = {"passed": "green", "missed": "red", "not valid": "red"}


def print_table(
    columns: Sequence[str],
    rows: Rows,
    *,
    right: Sequence[int] = (),
    expendable: Sequence[int] = (),
    out: TextIO | None = None,
) -> Sequence[str]:
    """`right`: indices of the columns that are aligned to the right and never folded. `expendable`: of those that
    a narrow terminal goes without, the first to go first. Returns the columns that were left out.
    """
    stream = out or sys.stdout
    rows = [[harmless(cell) for cell in row] for row in rows]
    with _read_by_somebody():
        if stream.isatty():
            return _print_coloured(columns, rows, right, expendable, stream)
        stream.write(plain_table(columns, rows, right=right))
        return ()


def _print_coloured(
    columns: Sequence[str], rows: Rows, right: Sequence[int], expendable: Sequence[int], stream: TextIO
) -> Sequence[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    kept = fitting(columns, rows, console.width, right=right, expendable=expendable)
    if kept is None:
        for line in as_lists(columns, rows):
            console.print(Text(line))
        return ()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        numeric = index in right
        table.add_column(columns[index], overflow="fold", no_wrap=numeric, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(row[index], style=_STYLES.get(row[index], "")) for index in kept))
    console.print(table)
    return [column for index, column in enumerate(columns) if index not in kept]


def fitting(
    columns: Sequence[str], rows: Rows, width: int, *, right: Sequence[int] = (), expendable: Sequence[int] = ()
) -> list[int] | None:
    """The columns for which there is room; None: not even for those that are not `expendable`."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    least = [size if index in right else min(size, _FOLDED) for index, size in enumerate(widths)]
    kept = list(range(len(columns)))
    for gone in (*expendable, None):
        if sum(least[index] for index in kept) + 2 * (len(kept) - 1) <= width:
            return kept
        kept = [index for index in kept if index != gone]
    return None


def as_lists(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """A line for each cell, for terminals on which no table has room."""
    for row in rows:
        yield from (f"{column} {cell}".strip() for column, cell in zip(columns, row, strict=True) if cell)
        yield ""


def plain_table(columns: Sequence[str], rows: Rows, *, right: Sequence[int] = ()) -> str:
    """Columns two spaces apart; one line a row whatever a cell holds."""
    cells = [list(columns), *([" ".join(cell.split()) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    lines = (
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def coloured(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Is it a terminal whose owner has not asked for NO_COLOR (https://no-color.org)?"""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def harmless(text: str) -> str:
    """Without control characters and halves of characters: what servers write must not steer a terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))


def say(text: str = "") -> None:
    """A line of what was asked for, on stdout."""
    with _read_by_somebody():
        print(harmless(text))


def note(text: str) -> None:
    """A line beside it, on stderr."""
    _aside(harmless(text))


def complain(word: str, text: str) -> None:
    """`word: …` for each line of the text, on stderr; the word in red."""
    import typer

    painted = typer.style(f"{word}:", fg="red") if coloured(sys.stderr) else f"{word}:"
    for line in harmless(text).splitlines() or [""]:
        _aside(f"{painted} {line}")


def silence(stream: TextIO) -> None:
    """What is written to it goes nowhere: Python flushes once more at exit, where nobody reads any more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def with_streams() -> None:
    """A program that was started without stdout or stderr (`>&-`) has none in Python either; it gets silent ones."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _aside(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:
        silence(sys.stderr)


@contextmanager
def _read_by_somebody() -> Iterator[None]:
    """A terminal that has gone is as a pipe that was closed."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise BrokenPipeError(errno.EPIPE, "the terminal has gone") from None
        raise
