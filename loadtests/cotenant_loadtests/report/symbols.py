"""Shapes used all over the page: markers that tell lines apart without colour, and the icons of the verdict."""

from cotenant_loadtests.report.markup import Markup, element

MARKER_PATHS = {
    "dot": "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "square": "M-3.2-3.2h6.4v6.4h-6.4z",
    "triangle": "M0-4.2L4 3.2H-4z",
    "diamond": "M0-4.6L4.6 0L0 4.6L-4.6 0z",
    "cross": "M-3.2-3.2L3.2 3.2M3.2-3.2L-3.2 3.2",
    "plus": "M-4 0H4M0-4V4",
    "ring": "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "notch": "M0 0v5",
}
ICON_PATHS = {
    "check": "M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20zM7 12.5l3.5 3.5L17 9",
    "cross": "M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20zM8 8l8 8M16 8l-8 8",
    "warning": "M12 3L22.5 21H1.5zM12 9.5v5.5M12 17.6v.8",
}


def symbols() -> Markup:
    shapes = [element("path", d=path, id=f"m-{name}") for name, path in MARKER_PATHS.items()]
    shapes += [element("path", d=path, id=f"i-{name}") for name, path in ICON_PATHS.items()]
    return element("svg", element("defs", shapes), class_="symbols", width=0, height=0, aria_hidden="true")
