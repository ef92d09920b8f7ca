"""Names of tenants and models: `echo-{01..20}` and Zipf popularity. Standard library only; pure."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from cotenant_loadtests.seeded import Source

MAX_NAMES = 10_000
MAX_NAME = 256
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Each name with its ranges written out; `{01..20}` keeps leading zeros. Raises ValueError with a sentence."""
    expanded: list[str] = []
    for name in names:
        _check(name)
        expanded += _expand_one(name)
        if len(expanded) > MAX_NAMES:
            raise ValueError(f"stands for more than {MAX_NAMES} names")
    name, count = Counter(expanded).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name!r} stands there {count} times")
    return tuple(expanded)


def _check(name: str) -> None:
    count = 1
    for found in _RANGE.finditer(name):
        first, last = int(found[1]), int(found[2])
        if first > last:
            raise ValueError(f"{name!r} has a range that runs backwards; write {{{last}..{first}}}")
        count *= last - first + 1
    if count > MAX_NAMES:
        raise ValueError(f"{name!r} stands for {count} names; at most {MAX_NAMES} are allowed")
    if {"{", "}"} & set(_RANGE.sub("", name)):
        raise ValueError(f"{name!r} has a brace that is no range; write a range like {{01..20}}")


def _expand_one(name: str) -> list[str]:
    found = _RANGE.search(name)
    if found is None:
        return [name]
    width = len(found[1]) if found[1].startswith("0") else 0
    numbers = (f"{number:0{width}}" for number in range(int(found[1]), int(found[2]) + 1))
    after = _expand_one(name[found.end() :])
    return [name[: found.start()] + number + rest for number in numbers for rest in after]


def name_problem(kind: str, name: str) -> str | None:
    """What is wrong with a name of a `tenant` or a `model`: results are named `tenant/model`, with `*` for all."""
    if not name or not name.isprintable() or name != name.strip() or len(name) > MAX_NAME:
        return f"{name!r} must be 1 to {MAX_NAME} printable characters, without spaces around them"
    if name == "*":
        return "'*' names all of them in results; give another name"
    if kind == "tenant" and "/" in name:
        return f"{name!r} must not have a '/', because results are named tenant/model"
    return None


def chooser(names: Sequence[str], zipf: float, source: Source) -> Callable[[], str]:
    """Draws a name, the k-th in proportion to 1/k^zipf. A single name draws nothing."""
    expanded = expand(names)
    if len(expanded) == 1:
        return lambda: expanded[0]
    cumulative = list(accumulate(rank**-zipf for rank in range(1, len(expanded) + 1)))
    return lambda: expanded[source.index(cumulative)]
