"""HTML and SVG from nested calls. Whatever is not `Markup` is escaped: names and details come from anywhere."""

import html
import re
from collections.abc import Iterable

VOID = frozenset({"meta", "link", "br", "col", "hr"})
SELF_CLOSING = frozenset({"path", "line", "rect", "circle", "use"})
# Not allowed in HTML, or able to turn text around: control characters, lone surrogates, bidi overrides.
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def escaped(text: object) -> Markup:
    """`text` as content or attribute; what no page may hold becomes U+FFFD."""
    return Markup(html.escape(_UNSHOWABLE.sub("\ufffd", str(text)), quote=True))


def joined(*children: Child) -> Markup:
    """`children` one after the other; None is nothing."""
    return Markup("".join(_pieces(children)))


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """`<tag …>…</tag>`. `class_` is `class`, `aria_label` is `aria-label`; None and False leave an attribute out."""
    start = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}"
    if tag in VOID:
        return Markup(f"{start}>")
    if tag in SELF_CLOSING and not children:
        return Markup(f"{start}/>")
    return Markup(f"{start}>{joined(*children)}</{tag}>")


def named(name: str) -> Markup:
    """A name that somebody else chose, kept from mixing with the text around it."""
    return element("bdi", name)


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int | float):
            yield escaped(child)
        else:
            yield from _pieces(child)
