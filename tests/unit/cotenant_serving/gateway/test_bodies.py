"""Bodies are bounded one by one, and all together."""

import pytest
from tests.builders.client import FakeClient

from cotenant_serving.gateway.bodies import BodyBudget, Reservation, check_headers, read_body
from cotenant_serving.gateway.client import ClientGoneError
from cotenant_serving.openai_api import RequestError


async def test_what_is_held_is_bounded_for_all_and_for_one_tenant() -> None:
    budget = BodyBudget(100)
    search, ads, late = (Reservation(budget, name) for name in ("search", "ads", "late"))

    assert await read_body(FakeClient(b"x" * 30, b"x" * 20), 60, search) == b"x" * 50
    with pytest.raises(RequestError) as alone:
        search.take(1)
    ads.take(45)
    with pytest.raises(RequestError) as together:
        await read_body(FakeClient(b"x" * 6), 60, late)
    search.release()
    Reservation(budget, "search").take(50)

    for caught in (alone, together):
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        assert caught.value.headers["retry-after"] == "1"


async def test_a_client_that_leaves_gives_back_what_it_held() -> None:
    budget = BodyBudget(100)
    held = Reservation(budget, "search")

    with pytest.raises(ClientGoneError):
        await read_body(FakeClient(b"x" * 50, leaves=True), 60, held)
    assert budget.held == 50
    held.release()

    assert (budget.held, dict(budget.of_tenant)) == (0, {})


async def test_a_body_is_refused_at_its_bound() -> None:
    budget = BodyBudget(100)

    assert await read_body(FakeClient(b"x" * 5, b"x" * 5), 10, Reservation(budget, "search")) == b"x" * 10
    with pytest.raises(RequestError) as caught:
        await read_body(FakeClient(b"x" * 5, b"x" * 6), 10, Reservation(budget, "search"))

    assert (caught.value.status, caught.value.code) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"content-length", b"81", 413),
        (b"inference-header-content-length", b"11", 413),
        (b"inference-header-content-length", b"9" * 40, 413),
        (b"content-encoding", b"gzip", 415),
        (b"content-type", b"multipart/form-data; boundary=x", 415),
        (b"content-type", b"Multipart/Mixed", 415),
        (b"content-type", b"application/json; charset=utf-16", 415),
        (b"content-type", b'text/plain; x=y;CHARSET = "latin1"', 415),
    ],
)
def test_headers_alone_refuse_what_would_be_refused(name: bytes, value: bytes, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        check_headers({name: value}, 80, 10)

    assert caught.value.status == status


def test_headers_within_the_bounds_pass() -> None:
    given = {b"content-length": b"80", b"inference-header-content-length": b"10", b"content-encoding": b"identity"}

    check_headers(given, 80, 10)


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"APPLICATION/JSON; charset=UTF-8",
        b'text/plain; charset="utf8"',
        b"text/plain; charset=us-ascii",
        b"application/x-www-form-urlencoded",
        b"application/octet-stream",
        b"application/vnd.api+json",
        b"",
        b"\xff",
    ],
)
def test_a_body_may_be_called_anything_that_could_be_json(value: bytes) -> None:
    check_headers({b"content-type": value}, 80, 10)
