"""`server-timing`: phases that a server tells of an answer, in milliseconds. Pure.

queue;dur=12.5, engine;dur=20;desc="until it began"      https://www.w3.org/TR/server-timing/
"""

import math
import re

MAX_CHARS = 200
MAX_PHASES = 12
_OTHERS = re.compile(r"[^A-Za-z0-9_.;=, -]")
_PHASE = re.compile(
    r"(?P<name>[A-Za-z0-9_-]{1,40})\s*(?:;[^,;]*)*?;\s*dur=(?P<ms>[0-9]+(?:\.[0-9]+)?)", re.IGNORECASE
)


def timing_text(value: bytes) -> str:
    """As it is kept in a record: bounded, and of plain characters."""
    return _OTHERS.sub("?", value[:MAX_CHARS].decode("latin-1"))


def timing_phases(text: str) -> list[tuple[str, float]]:
    """(name, milliseconds) of each phase with a length, in the server's order; what cannot be read is left out."""
    found = [match for part in text.split(",") if (match := _PHASE.match(part.strip())) is not None]
    phases = [(match["name"], float(match["ms"])) for match in found[:MAX_PHASES]]
    return [(name, length_ms) for name, length_ms in phases if math.isfinite(length_ms) and length_ms > 0]
