"""What the commands beside `run` found, from `extras`: the first thing to read where there is one."""

from collections.abc import Callable
from typing import Any

import msgspec

from cotenant_loadtests import extras
from cotenant_loadtests.report.capacity import capacity
from cotenant_loadtests.report.cast import Cast
from cotenant_loadtests.report.cold_starts import cold_starts
from cotenant_loadtests.report.drift import drift
from cotenant_loadtests.report.markup import Markup, element, joined
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.ratios import ratios
from cotenant_loadtests.report.shares_over_time import shares_over_time
from cotenant_loadtests.results import Results

Draw = Callable[[Any, Cast], Markup]
KNOWN: dict[str, tuple[type[msgspec.Struct], Draw]] = {
    "compare": (extras.Comparison, lambda found, _: ratios(found)),
    "find-capacity": (extras.Capacity, lambda found, _: capacity(found)),
    "fairness": (extras.FairnessFound, shares_over_time),
    "coldstart": (extras.ColdStarts, lambda found, _: cold_starts(found)),
    "soak": (extras.Soak, lambda found, _: drift(found)),
}


def comparisons(results: Results, cast: Cast) -> Markup:
    return joined(_section(name, results, cast) for name in KNOWN if name in results.extras)


def _section(name: str, results: Results, cast: Cast) -> Markup:
    shape, draw = KNOWN[name]
    try:
        found = msgspec.convert(results.extras[name], shape)
    except msgspec.ValidationError as problem:
        words = f"The figures of {name} are not of the shape that this version knows: {problem}."
        return section(f"x-{name}", name, element("p", words, class_="quiet"))
    return draw(found, cast)
