"""Kubernetes quantities and durations as numbers, and numbers as text for people. Pure."""

import re
from fractions import Fraction
from typing import Any

_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_QUANTITY = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?([A-Za-z]*)")
_SMALL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_LARGE = {**_UNITS, "P": 10**15, "E": 10**18, "Pi": 2**50, "Ei": 2**60}
_AMOUNT = re.compile(
    rf"([+-]?[0-9]{{1,18}}(?:\.[0-9]{{0,9}})?(?:[eE][+-]?[0-9]{{1,2}})?)({'|'.join([*_SMALL, *_LARGE])})"
)
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_MAX_BYTES = 2**53
MIB = 2**20
GIB = 2**30


def amount(value: Any) -> Fraction | None:
    """Any quantity as a number, so that two spellings of one can be compared: `100m` is `0.1`, `1024Mi` is `1Gi`."""
    match = _AMOUNT.fullmatch(str(value))
    if match is None:
        return None
    number, unit = match.groups()
    return Fraction(number) * (_SMALL[unit] if unit in _SMALL else _LARGE[unit])


def parse_bytes(value: Any) -> int:
    """`12Gi`, `9856Mi`, `1.5G` or plain bytes → bytes, rounded down.

    Raises ValueError whose text says what is allowed.
    """
    wanted = "must be a quantity of bytes such as 12Gi, 9856Mi, 1.5G or 1073741824"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(wanted)
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(wanted)
    whole, decimals, unit = match.groups()
    if unit not in _UNITS:
        raise ValueError(f"{wanted}; unit {unit!r} is not one of {', '.join(list(_UNITS)[1:])}")
    decimals = decimals or ""
    result: int = int(whole + decimals) * _UNITS[unit] // 10 ** len(decimals)
    if result > _MAX_BYTES:
        raise ValueError(f"must be at most {_MAX_BYTES} bytes (8Pi)")
    return result


def parse_seconds(value: Any) -> float:
    """`10m`, `1h30m`, `45s`, `1.5s`, `250ms` or `0s` → seconds.

    A bare number is refused except 0: nobody can tell its unit. Raises ValueError.
    """
    wanted = "must be a duration such as 10m, 1h30m or 45s"
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        raise ValueError(wanted)
    text = value.strip()
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(wanted)
    units = [unit for _, unit in parts]
    if units != sorted(set(units), key=list(_SECONDS).index):
        raise ValueError(f"{wanted}, with each unit once and the largest first")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def show_bytes(count: int) -> str:
    """Bytes for people, in binary units with one decimal: `1.2 GiB`, `512 MiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.1f}".removesuffix(".0") + f" {unit}"
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + " TiB"


def as_quantity(count: int) -> str:
    """Bytes as a quantity that a user can paste, rounded up to whole Mi: 3435973836 → `3277Mi`."""
    mebibytes = -(-count // MIB)
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"


def show_seconds(seconds: float) -> str:
    """Seconds for people: `45s`, `10m`, `1h30m`, and `5ms` below one."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if number]
    return "".join(parts) or "0s"
