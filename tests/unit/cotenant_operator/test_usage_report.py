"""`cotenant usage`: each request once, whatever the file looks like."""

import time
from typing import Any

import msgspec
import pytest

from cotenant_operator.failure import FlagError
from cotenant_operator.usage_report import parse_by, parse_since, sum_up, usage_document, usage_rows
from cotenant_serving.gateway.usage import UsageRecord

NOW_S = 1_000_000.0


def line(number: int, **fields: Any) -> bytes:
    """As the gateway writes it."""
    given = {
        "time": NOW_S + number,
        "tenant": "search",
        "model": "search/chat",
        "request_id": f"req-{number}",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "estimated": False,
        "outcome": "ok",
        "status": 200,
        "duration_s": 0.5,
        "time_to_first_byte_s": None,
    }
    return msgspec.json.encode(UsageRecord(**{**given, **fields})) + b"\n"


def test_requests_tokens_and_errors_are_summed_by_tenant_and_model() -> None:
    lines = [
        line(1),
        line(2, outcome="upstream_error", estimated=True),
        line(3, outcome="client_closed"),
        line(4, tenant="ads", model="ads/echo", prompt_tokens=1, completion_tokens=2),
    ]

    columns, rows = usage_rows(sum_up(lines, ("tenant", "model"), None), wide=False)

    assert columns == ("TENANT", "MODEL", "REQUESTS", "ERRORS", "PROMPT", "COMPLETION", "ESTIMATED")
    assert rows == [
        ("ads", "ads/echo", "1", "0", "1", "2", "0"),
        ("search", "search/chat", "3", "1", "30", "15", "1"),
        ("total", "", "4", "1", "31", "17", "1"),
    ]


def test_a_request_that_stands_there_twice_is_counted_once() -> None:
    usage = sum_up([line(1), line(2), line(1)], ("tenant",), None)

    assert usage.total.requests == 2
    assert usage.total.prompt_tokens == 20


def test_damaged_lines_are_left_out_and_told_but_not_the_one_that_is_being_written() -> None:
    usage = sum_up([line(1), b'{"time": 1}\n', b"\xff\xfe\n", b"\n", line(2), line(3)[:20]], ("tenant",), None)

    assert usage.total.requests == 2
    assert usage.damaged == 2


def test_a_time_that_no_calendar_has_is_damage() -> None:
    usage = sum_up([line(1), line(2, time=1e300), line(3, time=-1e300)], ("day",), None)
    assert (usage.total.requests, usage.damaged) == (1, 2)
    assert usage_document(usage)["total"]["requests"] == 1


def test_what_ended_before_since_does_not_count() -> None:
    usage = sum_up([line(1), line(2), line(3)], ("model",), NOW_S + 2)

    assert usage.total.requests == 2
    assert usage_document(usage)["since"] == "1970-01-12T13:46:42Z"


def test_days_are_those_of_utc_and_the_document_has_every_number() -> None:
    usage = sum_up([line(0), line(1), line(2 * 86_400)], ("day", "outcome"), None)
    document = usage_document(usage)

    assert [(row["day"], row["requests"]) for row in document["rows"]] == [("1970-01-12", 2), ("1970-01-14", 1)]
    assert document["total"] == {
        "requests": 3,
        "errors": 0,
        "prompt_tokens": 30,
        "completion_tokens": 15,
        "total_tokens": 45,
        "estimated_requests": 0,
        "duration_s": 1.5,
        "first": "1970-01-12T13:46:40Z",
        "last": "1970-01-14T13:46:40Z",
    }
    assert usage_rows(usage, wide=True)[1][0][-3:] == ("0.50 s", "1970-01-12T13:46:40Z", "1970-01-12T13:46:41Z")


def test_no_lines_give_no_rows() -> None:
    assert usage_rows(sum_up([], ("tenant",), None), wide=True)[1] == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("1h30m", 5400), ("7d", 604_800), ("90s", 90)],
)
def test_since_takes_durations_before_now(text: str, seconds: int) -> None:
    assert parse_since(text, NOW_S) == NOW_S - seconds


def test_since_takes_dates_of_this_place_and_moments_that_say_where() -> None:
    assert parse_since("1970-01-02T00:00:00Z", NOW_S) == 86_400
    assert parse_since("2026-11-26", NOW_S) == time.mktime((2026, 11, 26, 0, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1x",
        "2026-13-01",
        "h",
        "99999999999999h",
        "1e9",
        "99999999999d",
        "999999999999h",
        "9" * 5000 + "d",
    ],
)
def test_since_says_what_it_takes(text: str) -> None:
    with pytest.raises(FlagError, match="such as 1h30m or 7d"):
        parse_since(text, NOW_S)


def test_by_names_what_can_be_summed_by() -> None:
    assert parse_by("model, day,model") == ("model", "day")
    with pytest.raises(FlagError, match="did you mean 'tenant'"):
        parse_by("tenants")
    with pytest.raises(FlagError, match="tenant, model, outcome, day"):
        parse_by(",")
