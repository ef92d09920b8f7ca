"""Numbers and times as people read them: three significant digits, units always."""

import math

NOTHING = "–"
MINUS = "−"


def number(value: float | None) -> str:
    """1234.5 → `1,235`; 12.34 → `12.3`; 0.01234 → `0.0123`; None and what is no number → `–`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size == 0:
        return "0"
    decimals = 0 if size >= 100 else max(0, 2 - math.floor(math.log10(size)))
    if decimals > 6:
        return f"{value:.1e}".replace("-", MINUS)
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def compact(value: float) -> str:
    """For axes: 250000 → `250k`, 4.1e8 → `410M`."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 100 * 1e3 and abs(value) >= factor:
            return f"{number(value / factor)}{letter}"
    return number(value)


def ratio(value: float | None) -> str:
    """Two decimals, so that those below one another line up: `0.88`, `1.00`; the usual digits far from 1."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2f}" if 0.1 <= value < 100 else number(value)


def whole(value: int) -> str:
    return f"{value:,}".replace("-", MINUS)


def milliseconds(value: float | None) -> str:
    return _with_unit(number(value), "ms")


def per_second(value: float | None) -> str:
    return _with_unit(number(value), "/s")


def percent(ratio: float | None) -> str:
    """0.9996 → `99.96 %`: never rounded up to 100 or down to 0."""
    if ratio is None or not math.isfinite(ratio):
        return NOTHING
    if ratio in {0, 1}:
        return f"{ratio * 100:.0f} %"
    for decimals in (1, 2, 3):
        text = f"{ratio * 100:.{decimals}f}"
        if float(text) not in {0.0, 100.0}:
            return f"{text} %".replace("-", MINUS)
    return "> 99.999 %" if ratio > 0.5 else "< 0.001 %"


def duration(seconds: float) -> str:
    """75 → `1 min 15 s`."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{number(seconds)} s"
    total = round(seconds)
    hours, minutes, rest = total // 3600, total // 60 % 60, total % 60
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def clock_range(from_s: float, to_s: float) -> str:
    return f"{number(from_s)} to {number(to_s)} s"


def size(count: float) -> str:
    """Bytes → `123 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{number(count)} {unit}"
        count /= 1000
    return f"{number(count)} TB"


def plural(count: int, word: str, many: str | None = None) -> str:
    """`1 request`, `1,200 requests`."""
    return f"{whole(count)} {word if count == 1 else many or word + 's'}"


def slo_value(slo: str, value: float | None) -> str:
    """The value of an SLO in its unit, which its name ends with."""
    if value is None:
        return "nothing measured"
    if slo.endswith("_ms"):
        return milliseconds(value)
    if slo.endswith("_per_s"):
        return per_second(value)
    if slo.endswith("_rate"):
        return percent(value)
    return number(value)


def _with_unit(text: str, unit: str) -> str:
    return text if text == NOTHING else f"{text} {unit}"
