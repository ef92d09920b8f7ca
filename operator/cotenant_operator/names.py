"""Names that people give on the command line → the ones that are meant. Pure."""

from collections.abc import Iterable

from cotenant_operator.failure import Failure
from cotenant_operator.near import near

_LISTED = 20


class UnknownNameError(Failure):
    """There is no such name, or several; the message says which there are."""


def model_named(name: str, known: Iterable[str]) -> str:
    """`name` or `namespace/name` → `namespace/name`. Raises UnknownNameError."""
    models = sorted(set(known))
    if name in models:
        return name
    found = [model for model in models if model.rpartition("/")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownNameError(f"{name!r} is ambiguous; say one of: {', '.join(found)}")
    raise UnknownNameError(_unknown("model", name, models, near(name, models) or _near_bare(name, models)))


def tenant_named(name: str, known: Iterable[str]) -> str:
    """Raises UnknownNameError."""
    tenants = sorted(set(known))
    if name in tenants:
        return name
    raise UnknownNameError(_unknown("tenant", name, tenants, near(name, tenants)))


def _near_bare(name: str, models: Iterable[str]) -> str | None:
    """`chta` is near to `search/chat`, which is much longer."""
    by_bare = {model.rpartition("/")[2]: model for model in models}
    match = near(name.rpartition("/")[2], by_bare)
    return by_bare[match] if match else None


def _unknown(kind: str, name: str, known: list[str], match: str | None) -> str:
    question = f"did you mean {match!r}? " if match else ""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there is no {kind} {name!r}; {question}known: {', '.join(known[:_LISTED]) or 'none'}{more}"
