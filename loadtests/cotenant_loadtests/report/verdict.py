"""The first screen: may the numbers be believed, and what was missed, in words."""

from cotenant_loadtests.gate import bound
from cotenant_loadtests.report.markup import Child, Markup, element, joined
from cotenant_loadtests.report.wording import duration, plural, slo_value
from cotenant_loadtests.results import Results, SloResult

HEADINGS = {"passed": "Passed", "missed": "Missed", "not_valid": "NOT VALID"}
ICONS = {"passed": "check", "missed": "cross", "not_valid": "warning"}


def verdict(results: Results) -> Markup:
    """Verdict, then why the numbers may not be believed, then that the run was cut short."""
    return joined(
        element(
            "div",
            icon(ICONS[results.verdict]),
            element("div", element("p", _heading(results), class_="word"), _reasons(results)),
            class_=f"verdict {results.verdict}",
            role="region",
            aria_label="Verdict",
        ),
        _interrupted(results),
    )


def icon(name: str) -> Markup:
    return element(
        "svg", element("use", href=f"#i-{name}"), viewBox="0 0 24 24", class_=f"icon {name}", aria_hidden="true"
    )


def missed(result: SloResult) -> str:
    """`ttft_p99_ms of ads is 812 ms, limit 500 ms`."""
    where = "all requests" if result.where == "*" else result.where
    limit = f"{limit_words(result.slo)} {slo_value(result.slo, result.limit)}"
    if result.value is None:
        return f"{result.slo} of {where}: nothing was measured there, {limit}"
    return f"{result.slo} of {where} is {slo_value(result.slo, result.value)}, {limit}"


def sentence(text: str) -> str:
    """With a capital, and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def limit_words(slo: str) -> str:
    """Whether the limit holds from above or from below."""
    return "limit" if bound(slo) == "at most" else bound(slo)


def _heading(results: Results) -> str:
    misses = sum(not slo.passed for slo in results.slo)
    if results.verdict == "not_valid":
        return HEADINGS["not_valid"]
    if not results.slo:
        return "Measured; no SLO was set"
    if results.verdict == "missed":
        return f"Missed {misses} of {plural(len(results.slo), 'SLO')}"
    return f"Passed: {'the SLO holds' if len(results.slo) == 1 else f'all {len(results.slo)} SLOs hold'}"


def _reasons(results: Results) -> Child:
    misses = [slo for slo in results.slo if not slo.passed]
    if results.verdict == "not_valid":
        return joined(
            element("p", "The figures below cannot be relied on, and no SLO is judged by them. Why, and what to do:"),
            element("ul", (element("li", sentence(reason)) for reason in results.validity.reasons)),
            element("p", f"As measured, {plural(len(misses), 'SLO')} would be missed.") if misses else None,
        )
    if misses:
        return element("ul", (element("li", element("strong", "missed: "), missed(slo)) for slo in misses))
    return None


def _interrupted(results: Results) -> Child:
    if not results.interrupted:
        return None
    planned = results.scenario.get("duration_s")
    of = f" of {duration(float(planned))}" if isinstance(planned, int | float) else ""
    return element(
        "div",
        icon("warning"),
        element(
            "p",
            element("strong", "Interrupted"),
            f" after {duration(results.duration_s)}{of}: the figures cover what was measured until then.",
        ),
        class_="verdict interrupted",
    )
