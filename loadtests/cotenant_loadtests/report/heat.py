"""Tenant × model as a map: a table whose cells are tinted, so that its numbers can be read, copied and heard."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cotenant_loadtests.report.cast import MOST_COLUMNS, MOST_PANELS, by_traffic
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.wording import NOTHING, number, percent
from cotenant_loadtests.results import Group, Results

SHADES = 6
OTHERS = None
"""The row or column of all names beyond those shown."""
Name = str | None
Cells = Mapping[tuple[Name, Name], list[Group]]


@dataclass(frozen=True)
class Cell:
    text: str
    shade: int
    """0 (as it should be) to SHADES - 1."""


def heat_map(results: Results) -> Markup | None:
    if not results.groups:
        return None
    tenants = _names([group.tenant for group in by_traffic(results.tenants)], MOST_PANELS)
    models = _names([group.model for group in by_traffic(results.models)], MOST_COLUMNS)
    cells = _gathered(results.groups, tenants, models)
    worst = [highest_ttft(groups) for groups in cells.values()]
    slowest = max((value for value in worst if value is not None), default=1.0)
    fastest = min((value for value in worst if value), default=1.0)
    return section(
        "map",
        "Tenants × models",
        element(
            "div",
            _map(
                "h-ttft",
                "TTFT p99, ms",
                "The stronger the tint, the slower. Others: the slowest among them.",
                tenants,
                models,
                cells,
                lambda groups: slowness(highest_ttft(groups), fastest, slowest),
            ),
            _map(
                "h-success",
                "Success rate",
                "The stronger the tint, the worse.",
                tenants,
                models,
                cells,
                lambda groups: failing(success_rate(groups)),
            ),
            class_="maps",
        ),
        lead=_left_out(results, tenants, models),
    )


def highest_ttft(groups: Sequence[Group]) -> float | None:
    """Percentiles of groups do not add up: of several, the slowest."""
    return max((group.ttft_ms.p99 for group in groups if group.ttft_ms.count), default=None)


def success_rate(groups: Sequence[Group]) -> float | None:
    scheduled = sum(group.scheduled for group in groups)
    return sum(group.succeeded for group in groups) / scheduled if scheduled else None


def slowness(value: float | None, fastest: float, slowest: float) -> Cell:
    """Shades are even in the logarithm: each is so many times slower than the one before."""
    if value is None:
        return Cell(NOTHING, 0)
    span = math.log(slowest / fastest) if slowest > fastest > 0 else 0.0
    if span < math.log(1.25) or value <= 0:
        return Cell(number(value), 0)
    return Cell(number(value), min(SHADES - 1, int(math.log(value / fastest) / span * SHADES)))


def failing(rate: float | None) -> Cell:
    """99.9 %, 99 %, 95 %, 80 % and 50 % part the shades."""
    if rate is None:
        return Cell(NOTHING, 0)
    return Cell(percent(rate), sum(rate < limit for limit in (0.999, 0.99, 0.95, 0.8, 0.5)))


def _names(names: Sequence[str], most: int) -> list[Name]:
    return list(names) if len(names) <= most else [*names[: most - 1], OTHERS]


def _gathered(groups: Sequence[Group], tenants: Sequence[Name], models: Sequence[Name]) -> Cells:
    cells: dict[tuple[Name, Name], list[Group]] = {}
    for group in groups:
        row = group.tenant if group.tenant in tenants else OTHERS
        column = group.model if group.model in models else OTHERS
        cells.setdefault((row, column), []).append(group)
    return cells


def _map(
    slug: str,
    title: str,
    note: str,
    tenants: Sequence[Name],
    models: Sequence[Name],
    cells: Cells,
    cell: Callable[[Sequence[Group]], Cell],
) -> Markup:
    head = element("tr", element("td"), (element("th", _name(model), scope="col") for model in models))
    rows = [
        element(
            "tr",
            element("th", _name(tenant), scope="row"),
            (_td(cell(cells.get((tenant, model), []))) for model in models),
        )
        for tenant in tenants
    ]
    drawing = element(
        "div",
        element(
            "table",
            element("caption", f"{title}, tenants down, models across"),
            element("thead", head),
            element("tbody", rows),
            class_="heat",
            id=slug,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=f"{title} of each tenant and model",
    )
    return picture(title, joined(note, " A dash: no such request."), drawing)


def _td(cell: Cell) -> Markup:
    return element("td", cell.text, class_="none" if cell.text == NOTHING else f"heat{cell.shade}")


def _name(name: Name) -> Markup:
    return element("em", "others") if name is OTHERS else named(name)


def _left_out(results: Results, tenants: Sequence[Name], models: Sequence[Name]) -> str | None:
    parts = [
        f"the {len(shown) - 1} busiest of {count} {what}"
        for shown, count, what in (
            (tenants, len(results.tenants), "tenants"),
            (models, len(results.models), "models"),
        )
        if OTHERS in shown
    ]
    return f"Shown by name: {' and '.join(parts)}." if parts else None
