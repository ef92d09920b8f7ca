"""Bytes as people read them, in messages and tables. Pure."""

import math

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(count: float, *, up: bool = False) -> str:
    """`13.4 GiB`, with one digit after the point. `up` rounds up: for what somebody has to provide."""
    if abs(count) < 1024:
        return f"{int(count)} bytes"
    power = next((power for power in range(1, len(_UNITS)) if abs(count) < 1000 * 1024**power), len(_UNITS))
    amount = count / 1024**power
    return f"{math.ceil(amount * 10) / 10 if up else amount:.1f} {_UNITS[power - 1]}"
