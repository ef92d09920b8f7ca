"""The OpenAPI document names every route, agrees with the parsers, and is shown on a page that needs no internet."""

import importlib.metadata
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest

from cotenant_serving import oip_api, openai_api, pooling_api
from cotenant_serving.gateway import routes
from cotenant_serving.gateway.openapi.document import document
from cotenant_serving.gateway.openapi.operations import ENGINE_STATUSES, OPERATIONS
from cotenant_serving.gateway.openapi.page import page
from cotenant_serving.gateway.pages import build_pages, own_version

DOCUMENT = document("1.2.3")
PARSERS = {
    "/v1/chat/completions": openai_api.parse_chat,
    "/v1/completions": openai_api.parse_completion,
    "/v1/embeddings": pooling_api.parse_embeddings,
    "/v1/rerank": pooling_api.parse_rerank,
    "/v1/score": pooling_api.parse_score,
    "/v1/classify": pooling_api.parse_classify,
    "/v2/models/{model}/infer": lambda body: oip_api.parse_infer(body, None),
}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (inner for name, inner in value.items() if name == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_is_described_and_no_other() -> None:
    described = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    pages = build_pages(None)  # type: ignore[arg-type]
    served = {(re.sub(r"{\w+:path}", "{model}", route.path), "GET") for route in pages.routes}  # type: ignore[attr-defined]
    engines = {(route.shown, route.method) for route in routes.ROUTES}
    versions = {(path.replace("{model}", "{model}/versions/{version}"), method) for path, method in engines}
    ready = {("/v2/models/{model}/ready", "GET"), ("/v2/models/{model}/versions/{version}/ready", "GET")}

    assert described == served | engines | ready | {one for one in versions if "version" in one[0]}


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        found = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


@pytest.mark.parametrize("path", PARSERS)
def test_examples_of_bodies_are_accepted(path: str) -> None:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]

    PARSERS[path](orjson.dumps(body))


def test_routes_that_ask_for_a_key_say_so() -> None:
    public = {path for path, methods in DOCUMENT["paths"].items() if not next(iter(methods.values()))["security"]}

    health = {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert public == health


def test_what_goes_to_an_engine_may_be_answered_with_every_error_of_the_gateway() -> None:
    from cotenant_serving.gateway.errors import ERRORS

    apart = {405}  # of methods that are not described
    assert {kind.status for kind in ERRORS.values()} - apart == set(ENGINE_STATUSES)
    assert {one.path for one in OPERATIONS if one.statuses == ENGINE_STATUSES} >= {one.shown for one in routes.ROUTES}


class Page(HTMLParser):
    """Collects what a browser would load, and the text of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_route_and_loads_nothing() -> None:
    shown = Page()
    shown.feed(page(DOCUMENT))

    assert all(path in shown.text for path in DOCUMENT["paths"])
    assert "1.2.3" in shown.text
    assert shown.addresses == ["openapi.json"]
    assert not shown.tags & {"script", "link", "img", "iframe"}


def test_the_page_shows_fields_with_their_bounds() -> None:
    text = page(DOCUMENT)

    assert "encoding_format" in text
    assert "&quot;float&quot; or &quot;base64&quot;" in text
    assert f"at most {pooling_api.MAX_INPUTS}" in text
    assert "inputs[].datatype*" in text


def test_the_document_says_how_long_all_pairs_may_be() -> None:
    schemas = DOCUMENT["components"]["schemas"]

    for described in (schemas["RerankRequest"]["properties"]["documents"], schemas["ScoreRequest"]):
        assert f"at most {pooling_api.MAX_PAIR_CHARS} characters" in described["description"]


def test_text_of_the_document_is_escaped_on_the_page() -> None:
    hostile = {**DOCUMENT, "info": {"title": "<script>", "version": "<b>", "description": "<i>"}}

    shown = page(hostile)

    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_program_that_is_not_installed_has_a_version_all_the_same(monkeypatch):
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **_: iter(()))
    assert own_version() == "0"
