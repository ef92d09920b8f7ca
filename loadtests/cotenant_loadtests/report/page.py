"""The whole page. It names no address: no script, font, picture or link is fetched, and its policy forbids any."""

from importlib.resources import files

from cotenant_loadtests.likely_cause import likely_cause
from cotenant_loadtests.report.cast import cast_of
from cotenant_loadtests.report.comparisons import comparisons, found_in
from cotenant_loadtests.report.failures import failures_section
from cotenant_loadtests.report.headline import about_the_run
from cotenant_loadtests.report.heat import heat_map
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.multiples import multiples
from cotenant_loadtests.report.numbers import numbers
from cotenant_loadtests.report.overview import key_figures, objectives, what_was_run
from cotenant_loadtests.report.percentiles import percentiles
from cotenant_loadtests.report.rates import rates
from cotenant_loadtests.report.server import server_side
from cotenant_loadtests.report.service import service
from cotenant_loadtests.report.symbols import symbols
from cotenant_loadtests.report.timelines import timelines
from cotenant_loadtests.report.tool import tool
from cotenant_loadtests.report.verdict import verdict
from cotenant_loadtests.results import Results

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def render_report(results: Results) -> str:
    """One HTML document, complete in itself."""
    return f"<!doctype html>\n{element('html', _head(results), _body(results), lang='en')}\n"


def _head(results: Results) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{results.name}: load test report"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(files(__package__).joinpath("style.css").read_text("utf-8"))),
    )


def _body(results: Results) -> Markup:
    cast = cast_of(results)
    found, problems = found_in(results)
    first, cause = found[0] if found else None, likely_cause(results)
    return element(
        "body",
        symbols(),
        element(
            "header",
            element("p", "Load test", class_="kicker"),
            element("h1", named(results.name)),
            element("p", named(results.about), class_="about") if results.about else None,
            verdict(results, first),
            element("p", "Likely cause: ", named(cause), class_="about") if cause else None,
        ),
        element(
            "main",
            comparisons(found, problems, cast),
            what_was_run(results, about_the_run(first)),
            key_figures(results),
            objectives(results),
            timelines(results, cast),
            server_side(results),
            percentiles(results, cast),
            multiples(results, cast),
            heat_map(results),
            rates(results),
            service(results),
            failures_section(results),
            tool(results),
            numbers(results),
        ),
        element("footer", joined(f"cotenant {results.cotenant_version} · {results.schema}")),
    )
