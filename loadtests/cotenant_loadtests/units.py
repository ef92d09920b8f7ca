"""Factors between units of time, and things that are counted."""

NS_PER_S = 1_000_000_000
US_PER_S = 1_000_000


def counted(count: int, word: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
