"""Tables, JSON and YAML for the command line. Writes to the given streams only."""

import contextlib
import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

Rows = Sequence[Sequence[str]]


@contextlib.contextmanager
def output_may_be_full() -> Iterator[None]:
    """A line that finds no room on its disk is lost; the program that says it goes on."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def print_table(columns: Sequence[str], rows: Rows, *, out: TextIO | None = None) -> None:
    """A rich table on a terminal, aligned lines without colours anywhere else; no control character of a cell."""
    stream = out or sys.stdout
    rows = [[harmless(cell) for cell in row] for row in rows]
    if not stream.isatty():
        stream.write(plain_table(columns, rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, right in zip(columns, _right_aligned(columns, rows), strict=True):
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console(file=stream).print(table)


def plain_table(columns: Sequence[str], rows: Rows) -> str:
    """Columns two spaces apart, numbers to the right; one line a row whatever a cell holds."""
    cells = [list(columns), *([" ".join(cell.split()) for cell in row] for row in rows)]
    right = _right_aligned(columns, rows)
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    lines = (
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _right_aligned(columns: Sequence[str], rows: Rows) -> list[bool]:
    """Columns that hold whole numbers only."""
    return [bool(rows) and all(row[index].isdigit() for row in rows) for index in range(len(columns))]


def coloured(stream: TextIO) -> bool:
    """Is it a terminal whose owner has not asked for NO_COLOR (https://no-color.org)?"""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour (`red`, `bright_black`) where the stream shows any."""
    import typer

    return typer.style(text, fg=colour) if coloured(stream) else text


def harmless(text: str) -> str:
    """Without control characters and halves of characters: what models, their files and engines write must not steer
    a person's terminal, and can be encoded."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))


def as_json(value: Any) -> str:
    """Indented JSON with sorted keys, ended by a newline."""
    import json

    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    # The same text, but a terminal obeys the first of these, and the second cannot be encoded.
    return re.sub("[\x7f-\x9f\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def as_yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=True, allow_unicode=True))


def note(message: str, colour: str = "") -> None:
    """A line for people, on stderr."""
    text = harmless(message)
    print(paint(text, colour, sys.stderr) if colour else text, file=sys.stderr)


def error(message: str) -> None:
    """One `error: …` line for each line of the message, on stderr."""
    for line in harmless(message).splitlines() or [""]:
        print(f"{paint('error:', 'red', sys.stderr)} {line}", file=sys.stderr)


def warning(message: str) -> None:
    print(f"{paint('warning:', 'yellow', sys.stderr)} {harmless(message)}", file=sys.stderr)


_STYLES = {
    "True": "green",
    "ready": "green",
    "accepted": "green",
    "ok": "green",
    "False": "yellow",
    "waiting": "yellow",
    "warning": "yellow",
    "failed": "red",
    "problem": "red",
}


def _style(cell: str) -> str:
    return _STYLES.get(cell, "red" if cell.startswith("refused") else "")
