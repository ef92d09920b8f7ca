"""A picture with everything that belongs to it: heading, one line on what it shows, legend, drawing, its table."""

from cotenant_loadtests.report.markup import Child, Markup, element
from cotenant_loadtests.report.tables import folded


def picture(title: Child, note: Child, *drawing: Child, legend: Child = None, table: Child = None) -> Markup:
    return element(
        "figure",
        element("figcaption", element("h3", title), element("p", note, class_="note") if note else None),
        legend,
        drawing,
        folded("Numbers", table) if table else None,
        class_="picture",
    )


def section(slug: str, title: str, *content: Child, lead: Child = None) -> Markup:
    return element(
        "section",
        element("h2", title, id=slug),
        element("p", lead, class_="lead") if lead else None,
        content,
        aria_labelledby=slug,
    )
