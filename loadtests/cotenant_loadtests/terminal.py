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
_STYLES = {"passed": "green", "missed": "red", "not valid": "red"}


def print_table(columns: Sequence[str], rows: Rows, *, right: Sequence[int] = (), out: TextIO | None = None) -> None:
    """`right`: indices of the columns that are aligned to the right."""
    stream = out or sys.stdout
    rows = [[harmless(cell) for cell in row] for row in rows]
    with _read_by_somebody():
        if stream.isatty():
            _print_coloured(columns, rows, right, stream)
        else:
            stream.write(plain_table(columns, rows, right=right))


def _print_coloured(columns: Sequence[str], rows: Rows, right: Sequence[int], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="right" if index in right else "left")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=stream).print(table)


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
