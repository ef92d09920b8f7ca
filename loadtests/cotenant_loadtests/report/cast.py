"""Who appears in pictures, and in which colour, dash and marker: the same one in every picture of a page; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.plot import MARKERS
from cotenant_loadtests.report.wording import percent
from cotenant_loadtests.results import ALL, Group, Results

MOST_LINES = 6
MOST_PANELS = 12
MOST_COLUMNS = 16


@dataclass(frozen=True)
class Actor:
    """A tenant as it is drawn."""

    tenant: str
    kind: str
    """CSS class of its colour and dash: `s0` is all tenants, `s1` … `s6` are one each, `rest` all others."""
    marker: str | None

    @property
    def label(self) -> Markup:
        if self.kind in ("s0", "rest"):
            return Markup("all tenants") if self.kind == "s0" else element("em", "others")
        return named(self.tenant)


EVERYONE = Actor(ALL, "s0", MARKERS[-1])
OTHERS = Actor("others", "rest", None)
"""All that are not drawn by name, together."""


@dataclass(frozen=True)
class Cast:
    """Tenants by traffic, the busiest first; those beyond `actors` stand in tables only."""

    actors: tuple[Actor, ...]
    panels: tuple[str, ...]
    """Tenants with a small picture of their own."""
    tenants: int
    share_drawn: float
    """Of the requests."""
    share_in_panels: float


def cast_of(results: Results) -> Cast:
    busiest = by_traffic(results.tenants)
    names = [group.tenant for group in busiest]
    actors = tuple(Actor(name, f"s{i + 1}", MARKERS[i]) for i, name in enumerate(names[:MOST_LINES]))
    return Cast(
        actors,
        tuple(names[:MOST_PANELS]),
        len(names),
        share_of(busiest[:MOST_LINES], busiest),
        share_of(busiest[:MOST_PANELS], busiest),
    )


def by_traffic(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-group.scheduled, group.tenant, group.model))


def share_of(some: Sequence[Group], of: Sequence[Group]) -> float:
    """Of the requests scheduled; 1 where there are none."""
    total = sum(group.scheduled for group in of)
    return sum(group.scheduled for group in some) / total if total else 1.0


def who_is_drawn(drawn: int, tenants: int, share: float) -> str | None:
    """What a picture says when it does not show everyone."""
    if drawn >= tenants:
        return None
    busiest = f"The {drawn} busiest of {tenants} tenants, with {percent(share)} of the requests"
    return f"{busiest}; each tenant is among the numbers at the end."


def legend(entries: Sequence[tuple[str, str | None, Markup]]) -> Markup:
    """(kind, marker, label) of each line, with a stroke as it is drawn."""
    return element(
        "ul", (element("li", swatch(kind, marker), label) for kind, marker, label in entries), class_="legend"
    )


def swatch(kind: str, marker: str | None = None) -> Markup:
    """A stroke; for kinds of areas, a filled piece."""
    shape: Markup | None
    if kind.split(maxsplit=1)[0] in ("bars", "band", "shade"):
        shape = element("rect", y=3, width=26, height=8, class_=kind)
    elif kind.startswith("none "):
        shape = None
    else:
        shape = element("path", d="M0 7h26", class_=f"line {kind}")
    over = element("use", href=f"#m-{marker}", x=13, y=7, class_=f"mark {kind}") if marker else None
    return element("svg", joined(shape, over), width=26, height=14, aria_hidden="true", class_="swatch")
