"""A share of a plan comes in order of time, with its bytes made ahead as far as there is room."""

from pathlib import Path

import pytest
from tests.builders.loadtest_worker import chat, write_share

from cotenant_loadtests.deadlines import SLOT_NS, Deadlines
from cotenant_loadtests.exchange import Exchange, TenantCount
from cotenant_loadtests.plan_file import PlanError
from cotenant_loadtests.planned import Message, Planned
from cotenant_loadtests.request_bytes import RequestWriter
from cotenant_loadtests.share_file import Share
from cotenant_loadtests.upcoming import AHEAD_NS, MAX_AHEAD_BYTES, MAX_AHEAD_REQUESTS, NEVER_NS, Upcoming

S = 1_000_000_000


def exchange(planned: Planned, due_ns: int, size: int = 10) -> Exchange:
    return Exchange(planned, b"x" * size, scheduled_ns=due_ns, tenant=TenantCount(), expected=None)


def share(folder: Path, plan: list[Planned]) -> Share:
    write_share(folder / "share", plan)
    return Share(folder / "share")


def taken(upcoming: Upcoming, now_ns: int) -> list[int]:
    return [each.planned.id for each in iter(lambda: upcoming.take(now_ns), None)]


@pytest.mark.parametrize("prepared", [0, 1, 3])
def test_requests_come_when_they_are_due_and_not_before(tmp_path: Path, prepared: int) -> None:
    upcoming = Upcoming(share(tmp_path, [chat(0), chat(1, at_s=0.2), chat(2, at_s=0.3)]), exchange, start_ns=5 * S)
    for _ in range(prepared):
        upcoming.prepare()
    assert taken(upcoming, 5 * S - 1) == []
    assert taken(upcoming, 5 * S) == [0]
    assert upcoming.next_ns == 5 * S + S // 5
    assert taken(upcoming, 6 * S) == [1, 2]
    assert upcoming.next_ns == NEVER_NS


def test_a_plan_out_of_order_is_sent_in_order(tmp_path: Path) -> None:
    upcoming = Upcoming(share(tmp_path, [chat(0, at_s=0.2), chat(1, at_s=0.1)]), exchange, start_ns=0)
    assert taken(upcoming, S) == [1, 0]


@pytest.mark.parametrize("prepared", [0, 1, 2])
def test_a_turn_goes_between_the_arrivals(tmp_path: Path, prepared: int) -> None:
    plan = share(tmp_path, [chat(0), chat(1, at_s=None, after=0, think_s=0.1), chat(2, at_s=0.3)])
    upcoming = Upcoming(plan, exchange, start_ns=0)
    for _ in range(prepared):
        upcoming.prepare()
    assert taken(upcoming, 0) == [0]
    [(think_ns, place)] = plan.followers(0)
    upcoming.add_turn(think_ns, place)
    assert upcoming.next_ns == S // 10
    assert taken(upcoming, S) == [1, 2]


def test_only_what_is_near_is_made_ahead(tmp_path: Path) -> None:
    upcoming = Upcoming(share(tmp_path, [chat(0, at_s=1.0)]), exchange, start_ns=0)
    assert not upcoming.wants_preparing(S - AHEAD_NS - 1)
    assert upcoming.wants_preparing(S - AHEAD_NS)


def test_bytes_that_wait_are_bounded(tmp_path: Path) -> None:
    plan = share(tmp_path, [chat(number) for number in range(2 * MAX_AHEAD_REQUESTS)])
    many = Upcoming(plan, exchange, start_ns=0)
    large = Upcoming(plan, lambda planned, due_ns: exchange(planned, due_ns, MAX_AHEAD_BYTES // 3), start_ns=0)
    assert [_fill(many), _fill(large)] == [MAX_AHEAD_REQUESTS, 4]
    assert many.take(0) is not None
    assert _fill(many) == 1


def test_bytes_are_made_again_when_half_of_those_kept_ahead_are_gone(tmp_path: Path) -> None:
    plan = share(tmp_path, [chat(number) for number in range(2 * MAX_AHEAD_REQUESTS)])
    upcoming = Upcoming(plan, exchange, start_ns=0)
    assert upcoming.runs_low(0)
    _fill(upcoming)
    gone = 0
    while not upcoming.runs_low(0):
        upcoming.take(0)
        gone += 1
    assert gone == MAX_AHEAD_REQUESTS // 2 + 1
    assert _fill(upcoming) == gone


def _fill(upcoming: Upcoming) -> int:
    made = 0
    while upcoming.wants_preparing(0):
        upcoming.prepare()
        made += 1
    return made


def test_nothing_comes_after_forgetting(tmp_path: Path) -> None:
    upcoming = Upcoming(share(tmp_path, [chat(0), chat(1)]), exchange, start_ns=0)
    upcoming.prepare()
    upcoming.forget()
    assert (upcoming.next_ns, taken(upcoming, S)) == (NEVER_NS, [])


OTHER = '{"schema":"other","scenario":"x","seed":1,"requests":1,"duration_s":1}\n'


@pytest.mark.parametrize("text", ["", "{}\n", OTHER])
def test_a_file_that_is_no_plan_is_refused_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "share"
    path.write_text(text)
    with pytest.raises(PlanError, match="share"):
        Share(path)


def test_a_broken_line_of_a_share_is_named(tmp_path: Path) -> None:
    write_share(tmp_path / "share", [chat(0)])
    with (tmp_path / "share").open("ab") as file:
        file.write(b"{broken\n")
    with pytest.raises(PlanError, match="share:3"):
        Share(tmp_path / "share")


# Bytes of a request


def test_a_request_is_whole_and_names_its_tenants_key() -> None:
    planned = chat(0, messages=(Message(role="user", text="hi"),), check="shape")
    head, _, body = RequestWriter("host:1", "/v9", {"search": "sk-1"}).write(planned).partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /v9/v1/chat/completions HTTP/1.1"
    assert b"authorization: Bearer sk-1" in headers
    assert b"host: host:1" in headers
    assert b"content-length: %d" % len(body) in headers
    assert b"accept: text/event-stream" in headers


def test_a_tenant_without_a_key_sends_none() -> None:
    assert b"authorization" not in RequestWriter("h", "", {"other": "sk-1"}).write(chat(0))


@pytest.mark.parametrize("key", ["", "a\r\nb", "with space", "ümlaut", "\0"])
def test_a_key_that_would_break_a_header_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ValueError, match="tenant 'search'") as refused:
        RequestWriter("h", "", {"search": key})
    assert not key or key not in str(refused.value)


# Deadlines


def test_a_deadline_passes_at_the_end_of_its_slot_and_never_before() -> None:
    deadlines = Deadlines()
    early, late = exchange(chat(0, deadline_s=0.12), 0), exchange(chat(1, deadline_s=5), 0)
    deadlines.add(early)
    deadlines.add(late)
    assert deadlines.passed(S * 12 // 100 - 1) == []
    assert deadlines.passed(S * 12 // 100 + SLOT_NS) == [early]
    assert sorted(each.planned.id for each in deadlines) == [0, 1]
    deadlines.remove(early)
    deadlines.remove(early)
    assert list(deadlines) == [late]
    deadlines.remove(late)
    assert not deadlines
