"""Rows of a name, a drawing and words, on an axis they share."""

from collections.abc import Iterable

from cotenant_loadtests.report.markup import Child, Markup, element
from cotenant_loadtests.report.plot import percent_of
from cotenant_loadtests.report.scales import Scale


def rows(*content: Iterable[Markup] | Markup | None, kind: str = "") -> Markup:
    return element("div", content, class_=f"bar-chart {kind}".rstrip())


def row(slug: str, name: Child, drawing: Child, words: Child, *, title: str, told: str, height: int = 22) -> Markup:
    """`title` and `told` are what a screen reader says; `slug` is unique in the page."""
    picture = element(
        "svg",
        element("title", title, id=f"{slug}-t"),
        element("desc", told, id=f"{slug}-d"),
        drawing,
        role="img",
        aria_labelledby=f"{slug}-t {slug}-d",
        width="100%",
        height=height,
    )
    return element(
        "div",
        element("span", name, class_="bar-name"),
        picture,
        element("span", words, class_="bar-value"),
        class_="bar-row",
    )


def axis(scale: Scale) -> Markup:
    """The ticks below all rows."""
    labels = [
        element(
            "text",
            tick.label,
            x=percent_of(tick.at),
            y=12,
            class_="tick x first" if tick.at < 0.02 else "tick x last" if tick.at > 0.98 else "tick x",
        )
        for tick in scale.ticks
    ]
    drawing = element("svg", labels, class_="plot", width="100%", height=16, aria_hidden="true")
    return element("div", element("span"), drawing, element("span"), class_="bar-row axis-row")
