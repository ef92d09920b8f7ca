"""A run that shows one thing only says what it is, and what to do."""

from typing import Any

import pytest
from tests.builders.load_records import Request, answered, failed, run_of, scenario_of

from cotenant_loadtests.likely_cause import likely_cause
from cotenant_loadtests.record import Outcome
from cotenant_loadtests.report import render_report
from cotenant_loadtests.summary import summarise

TARGET = "http://127.0.0.1:8080"


def cause_of(*requests: Request) -> str | None:
    return likely_cause(summarise(scenario_of(), run_of(list(requests)), TARGET))


@pytest.mark.parametrize(
    ("outcome", "fields", "says"),
    [
        ("connect", {"detail": "ECONNREFUSED"}, f"no connection to {TARGET} (ECONNREFUSED): look whether the server"),
        ("tls", {"detail": "certificate"}, "(certificate): look at the scheme of target.url, at target.ca_file"),
        ("redirect", {"status": 301}, "sends elsewhere (301), which is never followed"),
        ("http_error", {"status": 401, "tenant": "search"}, "401 for tenant search: "),
        ("http_error", {"status": 401, "tenant": "search"}, "say in tenants.search.key where it is"),
        (
            "http_error",
            {"status": 404, "model": "gone"},
            f"404 from {TARGET}: it does not have this API or this model",
        ),
        ("http_error", {"status": 501}, f"501 from {TARGET}: it does not have this API"),
        (
            "framing",
            {"detail": "invalid_method"},
            "is not of the API (invalid_method): look at target.url and its port",
        ),
    ],
)
def test_most_requests_that_failed_alike_have_a_cause(outcome: Outcome, fields: dict[str, Any], says: str) -> None:
    cause = cause_of(answered(at_s=1), *(failed(outcome, at_s=at_s, **fields) for at_s in (1, 2)))

    assert cause is not None
    assert says in cause


def test_the_keys_of_many_tenants_are_one_cause() -> None:
    cause = cause_of(*(failed("http_error", at_s=1, status=401, tenant=f"t{number:03}") for number in range(120)))

    assert cause is not None
    assert cause.startswith("401 for tenant t000 and 49 more: ")


@pytest.mark.parametrize(
    "requests",
    [
        [answered(at_s=1)],
        [answered(at_s=1), failed("connect", at_s=1)],
        [failed("timeout", at_s=1)],
        [failed("connect", at_s=1), failed("timeout", at_s=1)],
    ],
    ids=["nothing failed", "half failed", "too slow has many causes", "different failures"],
)
def test_what_has_no_one_cause_says_none(requests: list[Request]) -> None:
    assert cause_of(*requests) is None


def test_the_page_begins_with_the_cause() -> None:
    failures = [failed("http_error", at_s=1, status=403, tenant="search")]

    page = render_report(summarise(scenario_of(), run_of(failures), TARGET))

    assert "Likely cause: <bdi>403 for tenant search" in page
    assert "Likely cause" not in render_report(summarise(scenario_of(), run_of([answered(at_s=1)]), TARGET))
