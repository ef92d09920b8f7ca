"""Inline SVG that is as wide as the page lets it be: shapes stretch, while text, markers and strokes keep their size.

<svg role=img>            units of the page; places in percent
  grid, tick labels
  <svg viewBox …>         0 to 2000 in both directions, stretched to the plot
    areas, lines
  markers, labels
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotenant_loadtests.report.markup import Markup, element, joined
from cotenant_loadtests.report.scales import Scale

UNITS = 2000
MARKERS = ("dot", "square", "triangle", "diamond", "cross", "plus", "ring")
Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Layer:
    """One thing drawn: what stretches with the plot, and what keeps its size over it."""

    stretched: Markup | None = None
    fixed: Markup | None = None


@dataclass(frozen=True)
class Axes:
    x: Scale
    y: Scale


def line(axes: Axes, points: Points, kind: str, *, marker: str | None = None) -> Layer:
    """A line in the style of `kind`, broken where a value is None; a marker here and there tells lines apart.

    Each marker begins elsewhere, so that lines which lie on one another can still be told apart.
    """
    drawn = element("path", d=path(axes, points), class_=f"line {kind}")
    known = [(x, y) for x, y in points if y is not None]
    if marker is None or not known:
        return Layer(stretched=drawn)
    step = max(1, len(known) // 5)
    first = step * (MARKERS.index(marker) + 1) // (len(MARKERS) + 1)
    return Layer(drawn, joined(mark(axes, x, y, marker, kind) for x, y in known[first::step]))


def path(axes: Axes, points: Points) -> str:
    """SVG path data; a point alone becomes a line of no length, which round caps make a dot."""
    pieces: list[str] = []
    run: list[str] = []
    for x, y in (*points, (0.0, None)):
        if y is not None:
            run.append(_at(axes, x, y))
        elif run:
            pieces.append(f"M{run[0]}L{' '.join(run[1:])}" if len(run) > 1 else f"M{run[0]}h0")
            run = []
    return "".join(pieces)


def band(axes: Axes, low: Points, high: Points, kind: str) -> Layer:
    """The area between two lines with the same x; broken where either has no value."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for (x, bottom), (_, top) in zip(low, high, strict=True):
        if bottom is None or top is None:
            runs.append([])
        else:
            runs[-1].append((x, bottom, top))
    shapes = (
        "M"
        + " ".join([_at(axes, x, top) for x, _, top in run] + [_at(axes, x, low) for x, low, _ in reversed(run)])
        + "z"
        for run in runs
        if len(run) > 1
    )
    return Layer(stretched=element("path", d="".join(shapes), class_=f"band {kind}"))


def bars(axes: Axes, points: Points, width: float, kind: str) -> Layer:
    """Bars from the foot, `width` wide in x, each at the left of its place."""
    shapes = []
    for x, value in points:
        if value:
            left, right = (round(axes.x.place(edge) * UNITS) for edge in (x, x + width))
            top = round((1 - axes.y.place(value)) * UNITS)
            shapes.append(f"M{left} {UNITS}V{top}H{max(left + 1, right)}V{UNITS}z")
    return Layer(stretched=element("path", d="".join(shapes), class_=f"bars {kind}"))


def shade(axes: Axes, from_x: float, to_x: float, kind: str = "shade") -> Layer:
    """A stretch of the x axis, over the whole height."""
    left, right = axes.x.place(from_x), axes.x.place(to_x)
    if right <= left:
        return Layer()
    return Layer(
        element("rect", x=round(left * UNITS), width=round((right - left) * UNITS), height=UNITS, class_=kind)
    )


def level(axes: Axes, value: float, label: str) -> Layer:
    """A dashed line across at `value`: a limit, with its words."""
    if not axes.y.low <= value <= axes.y.high:
        return Layer()
    y = 1 - axes.y.place(value)
    words = element("text", label, x="100%", y=percent_of(y), dy=-4 if y > 0.1 else 12, class_="limit-label")
    return Layer(element("path", d=f"M0 {round(y * UNITS)}H{UNITS}", class_="limit"), words)


def upright(axes: Axes, x: float, label: str) -> Layer:
    """A dashed line from foot to top at `x`, with its words on the side where there is room."""
    place = axes.x.place(x)
    words = element(
        "text",
        label,
        x=percent_of(place),
        y="0",
        dy=12,
        dx=-5 if place > 0.5 else 5,
        class_="limit-label" if place > 0.5 else "limit-label start",
    )
    return Layer(element("path", d=f"M{round(place * UNITS)} 0V{UNITS}", class_="limit"), words)


def marks(axes: Axes, xs: Iterable[float], marker: str, kind: str, *, most: int = 70) -> Layer:
    """Markers along the top: that something happened, and when. `most` have room, and half as many on a phone."""
    places: list[float] = []
    for place in (axes.x.place(x) for x in sorted(xs)):
        if not places or place - places[-1] >= 1 / most:
            places.append(place)
    used, last = [], -1.0
    for at in places:
        dense = at - last < 1 / 36
        last = last if dense else at
        style = f"mark {kind} dense" if dense else f"mark {kind}"
        used.append(element("use", href=f"#m-{marker}", x=percent_of(at), y="7", class_=style))
    return Layer(fixed=joined(used))


def mark(axes: Axes, x: float, y: float, marker: str, kind: str) -> Markup:
    return element(
        "use",
        href=f"#m-{marker}",
        x=percent_of(axes.x.place(x)),
        y=percent_of(1 - axes.y.place(y)),
        class_=f"mark {kind}",
    )


def plot(
    slug: str, title: str, description: str, axes: Axes, layers: Iterable[Layer], *, height: int = 180
) -> Markup:
    """`slug` is unique in the page; `title` and `description` are what a screen reader says."""
    drawn = tuple(layers)
    stretched = element(
        "svg",
        joined(layer.stretched for layer in drawn),
        viewBox=f"0 0 {UNITS} {UNITS}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    picture = element(
        "svg",
        element("title", title, id=f"{slug}-t"),
        element("desc", description, id=f"{slug}-d"),
        _grid(axes),
        stretched,
        (layer.fixed for layer in drawn),
        role="img",
        aria_labelledby=f"{slug}-t {slug}-d",
        class_="plot",
        width="100%",
        height=height,
    )
    return element("div", picture, class_="frame")


def _grid(axes: Axes) -> Markup:
    """Lines across at the ticks of y, labels at those of both axes."""
    rows = [
        joined(
            element("line", x1="0", x2="100%", y1=percent_of(1 - tick.at), y2=percent_of(1 - tick.at), class_="grid"),
            element("text", tick.label, x="-8", y=percent_of(1 - tick.at), dy="0.35em", class_="tick y"),
        )
        for tick in axes.y.ticks
    ]
    columns = []
    for i, tick in enumerate(axes.x.ticks):
        kind = "tick x first" if tick.at < 0.02 else "tick x last" if tick.at > 0.98 else "tick x"
        columns.append(
            joined(
                element("use", href="#m-notch", x=percent_of(tick.at), y="100%", class_="notch"),
                element(
                    "text",
                    tick.label,
                    x=percent_of(tick.at),
                    y="100%",
                    dy=18,
                    class_=f"{kind} odd" if i % 2 else kind,
                ),
            )
        )
    return joined(rows, columns)


def _at(axes: Axes, x: float, y: float) -> str:
    return f"{round(axes.x.place(x) * UNITS)} {round((1 - axes.y.place(y)) * UNITS)}"


def percent_of(place: float) -> str:
    return f"{place * 100:.2f}".rstrip("0").rstrip(".") + "%"
