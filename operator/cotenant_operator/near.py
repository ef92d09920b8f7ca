"""Near matches for names that were mistyped. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches


def near(given: str, allowed: Iterable[str]) -> str | None:
    """The allowed name closest to what was given, or None when nothing is close."""
    names = list(allowed)
    folded = {name.lower(): name for name in names}
    matches = get_close_matches(given.lower(), list(folded), n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def hint(given: str, allowed: Iterable[str], *, label: str = "allowed") -> str:
    """`did you mean 'x'? allowed: x, y`: the tail of a message about an unknown name."""
    names = list(allowed)
    match = near(given, names)
    question = f"did you mean {match!r}? " if match else ""
    return question + f"{label}: " + (", ".join(names) if names else "none")
