"""What went wrong, how often, and an example of each."""

from collections.abc import Iterable

from cotenant_loadtests.record import MEANINGS
from cotenant_loadtests.report.cast import by_traffic
from cotenant_loadtests.report.markup import Child, Markup, element, joined, named
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.tables import folded, table
from cotenant_loadtests.report.wording import number, percent, whole
from cotenant_loadtests.results import ErrorExample, Results


def failures_section(results: Results) -> Markup:
    if not results.total.failed and not results.errors:
        words = "No measured request failed." if results.total.scheduled else "No request was measured."
        return section("errors", "Errors", element("p", words, class_="quiet"))
    return section(
        "errors",
        "Errors",
        table("Failed requests by kind", ("kind", "requests", "share", "meaning"), _by_kind(results), words=(3,)),
        table(
            "Examples, the most frequent first",
            ("kind", "requests", "HTTP status", "tenant", "model", "first scheduled at", "what was read"),
            (_example(example) for example in sorted(results.errors, key=lambda one: (-one.count, one.first_at_s))),
            words=(3, 4, 6),
        ),
        folded(
            "Failures of each tenant",
            table("Failures of each tenant", ("tenant", "kind", "requests"), _by_tenant(results), words=(1,)),
        ),
        lead=f"{whole(results.total.failed)} of {whole(results.total.scheduled)} measured requests failed. "
        "Failed requests count as bad in success rate and goodput; without an answer they have no latency."
        + _begun(results),
    )


def _by_kind(results: Results) -> Iterable[tuple[Child, ...]]:
    total = results.total.scheduled
    for kind, count in sorted(results.total.errors.items(), key=lambda item: (-item[1], item[0])):
        meaning = next((words for outcome, words in MEANINGS.items() if outcome == kind), "")
        yield element("code", kind), whole(count), percent(count / total if total else None), meaning


def _begun(results: Results) -> str:
    if not any(example.status == 200 for example in results.errors):
        return ""
    return " A status of 200 beside a failure: the answer had begun, and went wrong or stayed incomplete after that."


def _example(example: ErrorExample) -> tuple[Child, ...]:
    return (
        element("code", example.outcome),
        whole(example.count),
        str(example.status) if example.status else "none",
        named(example.tenant),
        named(example.model),
        f"{number(example.first_at_s)} s",
        joined(element("span", named(example.detail or "–"), class_="detail")),
    )


def _by_tenant(results: Results) -> Iterable[tuple[Child, ...]]:
    for group in by_traffic(results.tenants):
        for kind, count in sorted(group.errors.items(), key=lambda item: (-item[1], item[0])):
            yield named(group.tenant), element("code", kind), whole(count)
