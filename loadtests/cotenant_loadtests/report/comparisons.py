"""What the commands beside `run` found, from `extras`: the first thing to read where there is one."""

import msgspec

from cotenant_loadtests.extras import Capacity, ColdStarts, Comparison, FairnessFound, Found, Soak
from cotenant_loadtests.report.capacity import capacity
from cotenant_loadtests.report.cast import Cast
from cotenant_loadtests.report.cold_starts import cold_starts
from cotenant_loadtests.report.drift import drift
from cotenant_loadtests.report.markup import Markup, element, joined
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.ratios import ratios
from cotenant_loadtests.report.shares_over_time import shares_over_time
from cotenant_loadtests.results import Results

SHAPES: dict[str, type[Found]] = {
    "compare": Comparison,
    "find-capacity": Capacity,
    "fairness": FairnessFound,
    "coldstart": ColdStarts,
    "soak": Soak,
}
"""By the commands' names."""


def found_in(results: Results) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """What commands found, and what cannot be read: results may be of another version."""
    found: list[Found] = []
    problems = []
    for name, shape in SHAPES.items():
        try:
            if name in results.extras:
                found.append(msgspec.convert(results.extras[name], shape))
        except msgspec.ValidationError as problem:
            problems.append(f"The figures of {name} are not of the shape that this version knows: {problem}.")
    return tuple(found), tuple(problems)


def comparisons(found: tuple[Found, ...], problems: tuple[str, ...], cast: Cast) -> Markup:
    told = section("x-unknown", "Not shown", (element("p", words, class_="quiet") for words in problems))
    return joined((_drawn(one, cast) for one in found), told if problems else None)


def _drawn(found: Found, cast: Cast) -> Markup:
    match found:
        case Comparison():
            return ratios(found)
        case Capacity():
            return capacity(found)
        case FairnessFound():
            return shares_over_time(found, cast)
        case ColdStarts():
            return cold_starts(found)
        case Soak():
            return drift(found)
