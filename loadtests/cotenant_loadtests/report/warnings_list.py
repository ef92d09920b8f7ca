"""Why figures may not be believed, one line each."""

from cotenant_loadtests.report.markup import Markup, element
from cotenant_loadtests.report.verdict import sentence


def warnings_list(reasons: tuple[str, ...]) -> Markup | None:
    return (
        element("ul", (element("li", sentence(reason)) for reason in reasons), class_="problems") if reasons else None
    )
