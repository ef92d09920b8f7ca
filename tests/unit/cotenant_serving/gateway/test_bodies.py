"""Bodies are bounded one by one, and all together."""

import pytest

from cotenant_serving.gateway.bodies import (
    BodyBudget,
    ClientGoneError,
    check_headers,
    left_unread,
    read_body,
)
from cotenant_serving.gateway.reply import Message
from cotenant_serving.openai_api import RequestError


def receiving(*parts: bytes, gone: bool = False):
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": gone or index + 1 < len(parts)}
        for index, part in enumerate(parts)
    ]
    messages += [{"type": "http.disconnect"}] if gone else []

    async def receive() -> Message:
        return messages.pop(0)

    return receive


async def test_what_is_held_is_bounded_for_all_and_for_one_tenant() -> None:
    budget = BodyBudget(100)

    with budget.of("search") as search, budget.of("ads") as ads, budget.of("late") as late:
        assert await read_body(receiving(b"x" * 30, b"x" * 20), 60, 5, search) == b"x" * 50
        with pytest.raises(RequestError) as alone:
            search(1)
        ads(45)
        with pytest.raises(RequestError) as together:
            await read_body(receiving(b"x" * 6), 60, 5, late)
    with budget.of("search") as again:
        again(50)

    for caught in (alone, together):
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        assert caught.value.headers["retry-after"] == "1"
        assert left_unread(caught.value)


async def test_a_client_that_leaves_gives_back_what_it_held() -> None:
    budget = BodyBudget(100)

    with pytest.raises(ClientGoneError), budget.of("search") as reserve:
        await read_body(receiving(b"x" * 50, gone=True), 60, 5, reserve)

    with budget.of("search") as reserve:
        reserve(50)


async def test_a_body_is_refused_at_its_bound() -> None:
    taken: list[int] = []

    assert await read_body(receiving(b"x" * 5, b"x" * 5), 10, 5, taken.append) == b"x" * 10
    with pytest.raises(RequestError) as caught:
        await read_body(receiving(b"x" * 5, b"x" * 6), 10, 5, taken.append)

    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
    assert taken == [5, 5, 5]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"content-length", b"81", 413),
        (b"inference-header-content-length", b"11", 413),
        (b"inference-header-content-length", b"9" * 40, 413),
        (b"content-encoding", b"gzip", 415),
    ],
)
def test_headers_alone_refuse_what_would_be_refused(name: bytes, value: bytes, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        check_headers([(name, value)], 80, 10)

    assert caught.value.status == status


def test_headers_within_the_bounds_pass() -> None:
    given = {b"content-length": b"80", b"inference-header-content-length": b"10", b"content-encoding": b"identity"}

    check_headers(list(given.items()), 80, 10)
