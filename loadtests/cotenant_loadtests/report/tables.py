"""Tables that scroll inside the page, with a caption and scopes."""

from collections.abc import Iterable, Sequence

from cotenant_loadtests.report.markup import Child, Markup, element, joined

MOST_ROWS = 400
TEXT = "text"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    words: Sequence[int] = (),
    snug: bool = False,
) -> Markup:
    """The first cell of each row is its heading. Columns are right-aligned, but for the first and `words`.

    `snug`: few and short enough columns to fit a phone.
    """
    kinds = [TEXT if i == 0 or i in words else None for i in range(len(head))]
    body: list[Markup] = []
    left_out = 0
    for cells in rows:
        if len(body) == MOST_ROWS:
            left_out += 1
            continue
        body.append(_row(cells, kinds))
    if not body:
        return element("p", f"{caption}: nothing to list.", class_="quiet")
    return element(
        "div",
        element(
            "table",
            element("caption", caption, f"; {left_out:,} more rows in results.json" if left_out else None),
            element(
                "thead",
                element(
                    "tr",
                    (element("th", title, scope="col", class_=kind) for title, kind in zip(head, kinds, strict=True)),
                ),
            ),
            element("tbody", body),
        ),
        class_="scroll snug" if snug else "scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def folded(summary: str, *content: Child) -> Markup:
    """Content that opens with a click, and is open in print."""
    return element("details", element("summary", summary), content)


def _row(cells: Sequence[Child], kinds: Sequence[str | None]) -> Markup:
    first, *others = cells
    return element(
        "tr",
        element("th", first, scope="row"),
        joined(element("td", cell, class_=kind) for cell, kind in zip(others, kinds[1:], strict=True)),
    )
