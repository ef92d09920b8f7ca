"""Names of tenants and models: `echo-{01..20}` and Zipf popularity. Standard library only; pure."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from cotenant_loadtests.seeded import Source

MAX_NAMES = 10_000
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Each name with its ranges written out; `{01..20}` keeps leading zeros. Raises ValueError with a sentence."""
    expanded: list[str] = []
    for name in names:
        expanded += _expand_one(name, MAX_NAMES - len(expanded))
    name, count = Counter(expanded).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name!r} stands there {count} times")
    return tuple(expanded)


def _expand_one(name: str, at_most: int) -> list[str]:
    found = _RANGE.search(name)
    if found is None:
        if "{" in name or "}" in name:
            raise ValueError(f"{name!r} has a brace that is no range; write a range like {{01..20}}")
        return [name]
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"{name!r} has a range that runs backwards; write {{{last}..{first}}}")
    if last - first >= at_most:
        raise ValueError(f"{name!r} stands for {last - first + 1} names; at most {MAX_NAMES} are allowed")
    width = len(found[1]) if found[1].startswith("0") else 0
    before, after = name[: found.start()], name[found.end() :]
    return [
        one for number in range(first, last + 1) for one in _expand_one(f"{before}{number:0{width}}{after}", at_most)
    ]


def chooser(names: Sequence[str], zipf: float, source: Source) -> Callable[[], str]:
    """Draws a name, the k-th in proportion to 1/k^zipf. A single name draws nothing."""
    expanded = expand(names)
    if len(expanded) == 1:
        return lambda: expanded[0]
    cumulative = list(accumulate(rank**-zipf for rank in range(1, len(expanded) + 1)))
    return lambda: expanded[source.index(cumulative)]
