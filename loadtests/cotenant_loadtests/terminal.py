"""Lines and tables for people: coloured on a terminal, plain anywhere else; nothing in them steers a terminal."""

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TextIO

Rows = Sequence[Sequence[str]]
_STYLES = {"passed": "green", "missed": "red", "not valid": "red"}


def print_table(columns: Sequence[str], rows: Rows, *, right: Sequence[int] = (), out: TextIO | None = None) -> None:
    """`right`: indices of the columns that are aligned to the right."""
    stream = out or sys.stdout
    rows = [[harmless(cell) for cell in row] for row in rows]
    if not stream.isatty():
        stream.write(plain_table(columns, rows, right=right))
        return
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
    print(harmless(text))


def note(text: str) -> None:
    """A line beside it, on stderr."""
    print(harmless(text), file=sys.stderr)


def complain(word: str, text: str) -> None:
    """`word: …` for each line of the text, on stderr; the word in red."""
    import typer

    painted = typer.style(f"{word}:", fg="red") if coloured(sys.stderr) else f"{word}:"
    for line in harmless(text).splitlines() or [""]:
        print(f"{painted} {line}", file=sys.stderr)
