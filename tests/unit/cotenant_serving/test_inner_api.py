"""What the APIs of conductor and operator let in: no token that is empty, no body without an end, no endless poll."""

import pytest

from cotenant_serving import inner_api
from cotenant_serving.inner_api import Answer, InnerApi, asked, wait_of


async def echo(scope, body):
    return Answer(200, body)


async def ask(api, path, *parts, token="", query=b""):
    """Status and body."""
    left, sent = list(parts) or [b""], []

    async def receive():
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    headers = [(b"authorization", b"Bearer " + token.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": query, "headers": headers}
    await api(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("known", "given", "status"),
    [
        ("t", "t", 200),
        ("t", "u", 401),
        ("t", "", 401),
        ("", "", 401),
        ("t\nnew", "t", 200),
        ("t\nnew", "new", 200),
        ("t\nnew", "t\nnew", 401),
        ("\n", "", 401),
    ],
)
async def test_only_the_token_of_now_opens_a_route_and_an_empty_one_opens_none(known, given, status):
    api = InnerApi({("POST", "/a"): ("pool", echo)}, {"pool": lambda: known})
    assert (await ask(api, "/a", b"x", token=given))[0] == status


async def test_a_body_is_read_whole_up_to_its_bound_and_no_further(monkeypatch):
    monkeypatch.setattr(inner_api, "MAX_BODY_BYTES", 6)
    api = InnerApi({("POST", "/a"): ("", echo)}, {})
    assert await ask(api, "/a", b"abc", b"", b"def") == (200, b"abcdef")
    assert (await ask(api, "/a", b"abc", b"defg", b"never read"))[0] == 413
    assert (await ask(api, "/b"))[0] == 404


def test_of_a_name_that_is_asked_twice_the_first_counts_and_no_poll_is_endless():
    query = asked({"query_string": b"wait_s=1e9&wait_s=1&after=7"})
    assert (query["after"], wait_of(query)) == ("7", inner_api.MAX_WAIT_S)
    assert (wait_of({}), wait_of({"wait_s": "-1"})) == (0.0, 0.0)
    with pytest.raises(ValueError, match="soon"):
        wait_of({"wait_s": "soon"})
