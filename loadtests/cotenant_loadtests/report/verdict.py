"""The first screen: may the numbers be believed, and what was missed, in words."""

from cotenant_loadtests.extras import Found
from cotenant_loadtests.report.headline import headline, not_judged
from cotenant_loadtests.report.markup import Child, Markup, element, joined
from cotenant_loadtests.report.wording import duration, plural
from cotenant_loadtests.results import Results

ICONS = {"passed": "check", "missed": "cross", "not_valid": "warning", "unsure": "warning"}


def verdict(results: Results, found: Found | None) -> Markup:
    """Verdict, then why the numbers may not be believed, then that the run was cut short."""
    words = headline(results, found)
    lines = element("ul", (element("li", line) for line in words.lines)) if words.lines else None
    kind = "unsure" if words.unsure and results.verdict == "passed" else results.verdict
    return joined(
        element(
            "div",
            icon(ICONS[kind]),
            element(
                "div",
                element("p", words.words, class_="word"),
                _not_valid(results, lines) if results.verdict == "not_valid" else lines,
                element("p", free) if found is None and (free := not_judged(results)) else None,
            ),
            class_=f"verdict {kind}",
            role="region",
            aria_label="Verdict",
        ),
        _interrupted(results, found),
    )


def icon(name: str) -> Markup:
    return element(
        "svg", element("use", href=f"#i-{name}"), viewBox="0 0 24 24", class_=f"icon {name}", aria_hidden="true"
    )


def _not_valid(results: Results, reasons: Child) -> Markup:
    misses = sum(not slo.passed for slo in results.slo) if results.total.scheduled else 0
    return joined(
        element("p", "The figures below cannot be relied on, and nothing is judged by them. Why, and what to do:"),
        reasons,
        element("p", f"As measured, {plural(misses, 'SLO')} would be missed.") if misses else None,
    )


def _interrupted(results: Results, found: Found | None) -> Child:
    if not results.interrupted:
        return None
    planned = results.scenario.get("duration_s")
    of = f" of {duration(float(planned))}" if isinstance(planned, int | float) else ""
    covered = "the figures cover what was measured" if results.total.scheduled else "nothing was measured"
    words = f" after {duration(results.duration_s)}{of}: {covered} until then."
    if found is not None:
        words = ": the figures cover the runs that were whole by then."
    return element(
        "div",
        icon("warning"),
        element("p", element("strong", "Interrupted"), words),
        class_="verdict interrupted",
    )
