"""schemathesis over the gateway's OpenAPI document, against a real gateway process between fake engines."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from tests.builders.gateway import KEYS
from tests.builders.gateway_calls import get
from tests.builders.gateway_stage import SERVED, gateway_with_engines

from cotenant_serving.contract import HEADER_JSON_LENGTH
from cotenant_serving.gateway.openapi.operations import BINARY, OPERATIONS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EXAMPLES = 100
"""Of each operation and mode, in full; beside them come those at the bounds of each value."""
UNHURRIED: dict[str, Any] = {"suppress_health_check": [*HealthCheck]}
BY_REQUEST = {
    "ChatRequest": "echo",
    "CompletionRequest": "echo",
    "EmbeddingsRequest": "embed",
    "RerankRequest": "rerank",
    "ScoreRequest": "rerank",
    "ClassifyRequest": "classify",
}
CONFIG = {
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 502, 503, 504]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413]},
    },
    "generation": {"database": "none", "with-security-parameters": False},
    "auth": {"openapi": {"bearer": {"bearer": KEYS["search"]}}},
}

RULES = (
    "they mean the same",
    "'stream_options' is only allowed when 'stream' is true",
    r"'\w+' has \d+ texts and '\w+' \d+\. Send",
    r"'inputs\[\d+\]\.(data|shape|name|parameters\.binary_data_size)",
    r"'outputs\[\d+\]\.name'",
)
"""What a schema cannot say, and so stands in its description: patterns of the errors."""


def accepted_unless_a_rule_says_no(context: Any, response: Any, case: Any) -> None:
    try:
        schemathesis.checks.positive_data_acceptance(context, response, case)
    except AssertionError:
        binary = case.media_type == BINARY or HEADER_JSON_LENGTH in (case.headers or {})
        ruled = binary or any(re.search(rule, message(response)) for rule in RULES)
        if response.status_code not in (400, 413) or not ruled:
            raise


def message(response: Any) -> str:
    found = response.json()["error"]
    return found if isinstance(found, str) else found["message"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def schema(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    async with gateway_with_engines(tmp_path_factory.mktemp("gateway")) as (gateway, _):
        document = orjson.loads((await get(gateway, "/openapi.json"))[2])
        loaded = schemathesis.openapi.from_dict(with_models(document), config=schemathesis.Config.from_dict(CONFIG))
        loaded.config.update(base_url=gateway.url)
        yield loaded


def with_models(document: dict[str, Any]) -> dict[str, Any]:
    """The document, but that models are those of the gateway: names out of thin air would all end as 404."""
    for component, task in BY_REQUEST.items():
        request = document["components"]["schemas"][component]
        for variant in request.get("anyOf", [request]):
            variant["properties"]["model"] = {"enum": [task, f"search/{task}", "nobody"]}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model":
                    names = SERVED if path.endswith("/ready") or path.startswith("/v1") else ("embed", "tensor")
                    parameter["schema"] = {"enum": [*names, *(f"search/{name}" for name in names), "nobody"]}
    return document


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
@pytest.mark.timeout(600)
async def test_answers_are_as_described(schema, operation, full_size):
    described = schema[operation.path][operation.method.upper()]

    with requests.Session() as session:
        await asyncio.to_thread(try_borders, schema, described, session)
        await asyncio.to_thread(try_anything, described, session, full_size(EXAMPLES))


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.request], ids=lambda one: one.path)
async def test_the_example_of_the_document_is_answered(schema, operation):
    described = schema[operation.path][operation.method.upper()]
    body = dict(operation.example)
    if operation.request in BY_REQUEST:
        body["model"] = BY_REQUEST[operation.request]
    case = described.Case(
        body=body, media_type="application/json", path_parameters={"model": "tensor", "version": "1"}
    )

    headers = {"authorization": f"Bearer {KEYS['search']}"}
    response = await asyncio.to_thread(
        case.call_and_validate, headers=headers, excluded_checks=[schemathesis.checks.ignored_auth]
    )

    assert response.status_code == 200, response.text


def try_borders(schema: Any, operation: Any, session: requests.Session) -> None:
    """Each value at and beyond its bounds, and methods that are not described."""
    generation = schema.config.generation
    for case in schema.iter_coverage_cases(
        operation, generation_modes=[*GenerationMode], generation_config=generation
    ):
        call(case, session)


def try_anything(operation: Any, session: requests.Session, examples: int) -> None:
    """Bodies and parameters as described, and others."""
    modes = GenerationMode if operation.body or operation.path_parameters else [GenerationMode.POSITIVE]
    for mode in modes:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=examples, derandomize=True, database=None, deadline=None, **UNHURRIED)
        def check(case: Any) -> None:
            call(case, session)

        check()


def call(case: Any, session: requests.Session) -> None:
    case.call_and_validate(
        session=session,
        additional_checks=[accepted_unless_a_rule_says_no],
        excluded_checks=[schemathesis.checks.positive_data_acceptance],
    )
