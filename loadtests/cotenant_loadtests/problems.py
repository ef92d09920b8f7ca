"""What is wrong with a scenario or a file of it, in sentences a user can act on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong; sorts by file and line."""

    file: str
    line: int
    """From 1; 0 where there is none."""
    field: str
    """Dotted: `streams.0.arrivals.rate_per_s`."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.field, self.message) if part)


class ScenarioError(Exception):
    """Why a scenario cannot be run; str has a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


def refused(file: object, line: int, message: str, field: str = "") -> ScenarioError:
    """An error with a single problem."""
    return ScenarioError([Problem(str(file), line, field, message)])


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """While a file is read: what goes wrong becomes a ScenarioError that names it."""
    try:
        yield
    except UnicodeDecodeError:
        raise refused(path, 0, "is not text in UTF-8") from None
    except OSError as error:
        raise refused(path, 0, f"cannot be read: {error.strerror}") from None


def check_size(path: Path, most_bytes: int) -> None:
    """Raises ScenarioError; OSError."""
    if (size_bytes := path.stat().st_size) > most_bytes:
        raise refused(path, 0, f"has {size_bytes} bytes; keep a part of at most {most_bytes}")


def one_of(given: str, allowed: Iterable[str]) -> str:
    """`did you mean 'x'? allowed: x, y`"""
    names = list(allowed)
    close = get_close_matches(given, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "allowed: " + ", ".join(names)
