"""What scripts that generate files share: write those that are out of date, or with --check only name them."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


class SourceError(Exception):
    """What the files are made from cannot be used; the message says where, and what to write."""


def bring_up_to_date(
    script: str, about: str, make: Callable[[], Mapping[Path, str]], arguments: Sequence[str] | None
) -> int:
    """`make` gives the text of each file, or raises SourceError. Returns the exit code of the script."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is out of date")
    check = parser.parse_args(arguments).check
    try:
        made = make()
    except SourceError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
    if check and stale:
        print(f"run: python {Path(script).resolve().relative_to(ROOT)}", file=sys.stderr)
    return int(check and bool(stale))
