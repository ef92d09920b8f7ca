"""Who calls is what the key's hash says, and nothing else; what one tenant does shows to no other."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import orjson
import pytest
from tests.builders.gateway import KEYS, POOL_TOKEN, Seen, Wire, chat, digest, eventually
from tests.builders.gateway_calls import get, post_chat, request
from tests.builders.raw_http import answers_to_all, message, statuses
from tests.cves.conftest import AUTHORIZED, Stage

from cotenant_serving.contract import HEADER_INSTANCE, HEADER_MODEL, HEADER_REQUEST_ID, HEADER_USAGE

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SQL = (
    *(
        "' OR '1'='1",
        "' OR 1=1 --",
        "'; DROP TABLE keys; --",
        '" OR ""="',
        "') OR ('1'='1",
        "1' UNION SELECT token--",
    ),
    *('sk-\' UNION SELECT * FROM "LiteLLM_VerificationToken"--', "%' OR key LIKE '%", "\\'; SELECT pg_sleep(9)--"),
    *(
        "admin'--",
        "' AND 1=(SELECT COUNT(*) FROM keys)--",
        "'||(SELECT key_sha256 FROM tenants)||'",
        "${jndi:ldap://x}",
    ),
    *("{{7*7}}", "$(touch /tmp/x)", "`id`", "*", "%", "_", "null", "undefined", "true", "[]", "{}", "0x31"),
)
CARRIERS = (
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "x-goog-api-key",
    "x-litellm-api-key",
    "proxy-authorization",
)


def sql_payloads(count: int, seed: int) -> list[tuple[str, str]]:
    """(header, value): known payloads, with pieces of real keys around them."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        piece = KEYS["search"][: drawn.randint(0, 20)] + drawn.choice(SQL) + KEYS["ads"][: drawn.randint(0, 8)]
        carrier = drawn.choice(CARRIERS)
        scheme = drawn.choice(("Bearer ", "bearer ", "Basic ", "")) if "authorization" in carrier else ""
        found.append((carrier, scheme + piece))
    return found


async def test_2000_sql_payloads_as_keys_are_wrong_keys_and_nothing_else(
    stage: Stage, full_size: Callable[[int], int]
) -> None:
    """CVE-2026-42208 (LiteLLM 1.81.16 to 1.83.6, before authentication): the key went into the text of a query.

    Here it goes into SHA-256 first and is looked up by the hash. Breaks when any part of a key is used as it came.
    """
    payloads = sql_payloads(full_size(2000), 42208)
    requests = [message(b"GET", b"/v1/models", f"{name}: {value}".encode()) for name, value in payloads]
    answered = await answers_to_all(stage.port, requests)
    assert Counter(tuple(statuses(raw)) for raw in answered) == {(401,): len(requests)}
    long = [(value, raw) for (_, value), raw in zip(payloads, answered, strict=True) if len(value) > 12]
    assert [value for value, raw in long if value.encode() in raw] == []


async def test_what_is_stored_of_a_key_is_no_key(stage: Stage) -> None:
    """GHSA-69x8-hrgq-fjj8: the API gave out hashes of keys, and took a hash for the key itself."""
    stored = stage.gateway.config_file.read_bytes()
    for name, key in KEYS.items():
        assert key.encode() not in stored
        assert digest(key).encode() in stored
        for shown in (digest(key), digest(key).upper(), digest(key)[:16], "sha256:" + digest(key)):
            status, _, body = await post_chat(stage.gateway, shown)
            assert (status, name.encode() in body) == (401, False)
    for path in ("/v1/models", "/openapi.json", "/metrics", "/v1/models/search/echo"):
        _, _, body = await get(stage.gateway, path, authorization=f"Bearer {KEYS['search']}")
        assert not [key for key in KEYS.values() if digest(key)[:16].encode() in body]


async def test_a_token_of_the_programs_is_no_key_of_a_tenant(stage: Stage) -> None:
    """CVE-2026-114612: one secret was used in several domains, so that what one accepts opened the other. The pool's
    token, which opens every engine, opens nothing at the gateway."""
    for headers in ({"authorization": f"Bearer {POOL_TOKEN}"}, {"x-api-key": POOL_TOKEN}):
        status, _, _ = await get(stage.gateway, "/v1/models", **headers)
        assert status == 401


SPOOFED = (
    *(
        "X-Tenant",
        "X_Tenant",
        "x-cotenant-tenant",
        "X-Cotenant-Tenant",
        "x_cotenant_tenant",
        "x-gateway-tenant",
        "x-user",
    ),
    *("x-cotenant-model", "x-cotenant-instance", "x-cotenant-usage", "x-forwarded-user", "x-forwarded-for"),
    *("x-forwarded-email", "x-remote-user", "remote-user", "x-auth-request-user", "x-consumer-username", "x-org-id"),
    *(
        "openai-organization",
        "openai-project",
        "x-litellm-user",
        "x-real-ip",
        "true-client-ip",
        "x-envoy-external-address",
    ),
)


async def test_headers_that_name_a_tenant_are_neither_believed_nor_passed_on(stage: Stage) -> None:
    """Spoofed trust headers, twice and in every spelling (all of uvicorn, granian, hypercorn and daphne pass both
    values of a repeated one): identity comes from the key alone."""
    lines = [f"{name}: {value}".encode() for name in SPOOFED for value in ("ads", "search", "ads/echo")]
    data = message(b"POST", b"/v1/chat/completions", AUTHORIZED, *lines, body=chat(model="search/echo"))
    [answered] = await answers_to_all(stage.port, [data])
    assert statuses(answered) == [200]
    [seen] = stage.heard()
    known = {"host", "authorization", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
    ours = {HEADER_MODEL, HEADER_INSTANCE, HEADER_REQUEST_ID, "connection"}
    assert set(seen.headers) <= known | ours
    assert (seen.headers[HEADER_MODEL], seen.headers["authorization"]) == ("search/echo", f"Bearer {POOL_TOKEN}")
    mine = seen.headers[HEADER_REQUEST_ID]
    await eventually(lambda: [one for one in stage.gateway.usage() if one["request_id"] == mine])
    assert [one["tenant"] for one in stage.gateway.usage() if one["request_id"] == mine] == ["search"]


async def test_a_spoofed_tenant_sees_no_model_of_the_other(stage: Stage) -> None:
    """As above: what is not the tenant's stays unknown, however it is asked for, and the answer does not differ from
    that for a model that does not exist."""
    spoofed = dict.fromkeys(SPOOFED, "ads")
    hidden = await post_chat(stage.gateway, headers=spoofed, model="ads/echo")
    nobody = await post_chat(stage.gateway, headers=spoofed, model="ads/none")
    assert (hidden[0], hidden[2].replace(b"ads/echo", b"X")) == (404, nobody[2].replace(b"ads/none", b"X"))
    assert stage.heard() == []


async def test_the_id_of_a_request_is_ours_whatever_the_client_sends(stage: Stage) -> None:
    """CVE-2026-116176 (vLLM 0.9.2 to 0.23): X-Request-Id was used as it came, and led the engine to another host.

    Only a harmless one comes back, in a header of its own; none goes on.
    """
    given = [
        *("http://169.254.169.254/latest", "../../v1/requests/x", "a b", "x" * 65, "{{7*7}}", "%0d%0ax-evil: 1", "é"),
        *("req-000000000000000000000000", "ok-1._A"),
    ]
    requests = [
        message(b"POST", b"/v1/chat/completions", AUTHORIZED, f"x-request-id: {one}".encode(), body=chat())
        for one in given
    ]
    answered = await answers_to_all(stage.port, requests)
    assert [statuses(raw) for raw in answered] == [[200]] * len(given)
    echoed = [one for one, raw in zip(given, answered, strict=True) if one.encode() in raw]
    assert echoed == given[-2:]
    sent = [seen.headers[HEADER_REQUEST_ID] for seen in stage.heard()]
    assert len({*sent, *given}) == 2 * len(given)


async def test_the_same_request_id_from_two_tenants_at_once_never_mixes_answers(stage: Stage) -> None:
    """CVE-2026-105755 (vLLM before 0.30.0, score and rerank): two requests with the same id at the same time got each
    other's results. 32 pairs are in flight together on one engine, all with one id."""
    arrived, all_there = [], asyncio.Event()

    async def answer_when_all_are_there(seen: Seen, wire: Wire) -> None:
        arrived.append(seen)
        if len(arrived) == 64:
            all_there.set()
        await all_there.wait()
        text = orjson.loads(seen.body)["messages"][0]["content"]
        await wire.answer(200, orjson.dumps({"answer_to": text}), {HEADER_USAGE: '{"prompt_tokens":1}'})

    stage.engines["search/echo"].usual = answer_when_all_are_there

    async def ask(who: str, number: int) -> tuple[str, int, bytes]:
        text = f"{who}-{number}"
        status, headers, body = await request(
            stage.gateway,
            "POST",
            "/v1/chat/completions",
            body=chat(text, model="search/echo"),
            headers={"authorization": f"Bearer {KEYS[who]}", "x-request-id": "same", "X_Request_Id": "same"},
        )
        assert headers["x-client-request-id"] == "same"
        return text, status, body

    answered = await asyncio.gather(*(ask(who, number) for who in KEYS for number in range(32)))
    assert [(status, orjson.loads(body)["answer_to"]) for _, status, body in answered] == [
        (200, text) for text, _, _ in answered
    ]
    assert len({seen.headers[HEADER_REQUEST_ID] for seen in arrived}) == 64
