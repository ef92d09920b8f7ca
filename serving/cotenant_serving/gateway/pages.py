"""Everything that does not go to engines: models, health, metrics and docs, as a small FastAPI app."""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import orjson

from cotenant_serving.gateway import catalog
from cotenant_serving.gateway.auth import authenticate
from cotenant_serving.gateway.client import claim
from cotenant_serving.gateway.config import TenantView
from cotenant_serving.gateway.errors import body_for, error
from cotenant_serving.gateway.openapi.document import document
from cotenant_serving.gateway.openapi.page import POLICY, page
from cotenant_serving.gateway.page_calls import CLIENT, Message
from cotenant_serving.gateway.routes import oip_target
from cotenant_serving.gateway.scrape import Scrape
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.openai_api import RequestError

if TYPE_CHECKING:
    from fastapi import FastAPI

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def build_pages(gateway: Gateway, *, metrics: bool = True) -> "FastAPI":
    """`metrics`: here, and not on a port of their own.

    FastAPI is imported here, so that the pure parts of the gateway load without it.
    """
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI(redirect_slashes=False, openapi_url=None)

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        return JSONResponse(catalog.listing(_view(gateway, request.scope)))

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> JSONResponse:
        view = _view(gateway, request.scope)
        return JSONResponse(catalog.model_object(view, catalog.resolve(view, name)))

    _add_health(app, gateway)
    if metrics:
        _add_metrics(app, gateway)
    _add_oip(app, gateway)
    _add_description(app)
    _answer_errors(app)
    return app


def build_admin(gateway: Gateway) -> "FastAPI":
    """What only those who run the gateway ask for."""
    from fastapi import FastAPI

    app = FastAPI(redirect_slashes=False, openapi_url=None)
    _add_health(app, gateway)
    _add_metrics(app, gateway)
    _answer_errors(app)
    return app


def _add_health(app: "FastAPI", gateway: Gateway) -> None:
    from fastapi.responses import JSONResponse

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        reason = gateway.unready()
        return JSONResponse({"ready": not reason, "reason": reason}, status_code=503 if reason else 200)


def _add_metrics(app: "FastAPI", gateway: Gateway) -> None:
    from fastapi import Response

    scrape = Scrape(lambda: partial(gateway.metrics.render, gateway.now()))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await scrape.text(gateway.clock()), media_type=_TEXT)


def _add_oip(app: "FastAPI", gateway: Gateway) -> None:
    """The part of the Open Inference Protocol that no engine answers."""
    from fastapi import Request
    from fastapi.responses import JSONResponse

    @app.get("/v2")
    async def server() -> JSONResponse:
        return JSONResponse({"name": "cotenant", "version": own_version(), "extensions": ["binary_tensor_data"]})

    @app.get("/v2/health/live")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        reason = gateway.unready()
        return JSONResponse({"ready": not reason, "reason": reason}, status_code=503 if reason else 200)

    @app.get("/v2/models/{rest:path}")
    async def model_ready(request: Request) -> JSONResponse:
        target = oip_target(request.scope["path"])
        if target is None:
            raise error("unknown_route")
        view = _view(gateway, request.scope)
        target.check_version()
        model = catalog.resolve(view, target.model).name
        problem = gateway.dispatcher.unready(model)
        if problem is None:
            return JSONResponse({"name": target.model, "ready": True})
        body = {"name": target.model, "ready": False, "error": problem.message}
        return JSONResponse(body, status_code=problem.status, headers=problem.headers)


def own_version() -> str:
    """A program that runs from its source tree has none: it serves all the same."""
    try:
        return version("cotenant")
    except PackageNotFoundError:
        return "0"


def _add_description(app: "FastAPI") -> None:
    from fastapi import Response

    described = document(own_version())
    raw, shown = orjson.dumps(described), page(described).encode()

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(raw, media_type="application/json")

    @app.get("/docs")
    async def docs() -> Response:
        return Response(shown, media_type="text/html", headers={"content-security-policy": POLICY})


def _view(gateway: Gateway, scope: Message) -> TenantView:
    if gateway.directory is None:
        raise error("not_ready", retry_after_s=1)
    try:
        tenant = authenticate(scope["headers"], gateway.directory.keyring)
        client = scope.get(CLIENT)
        if client is not None:
            claim(client, tenant)
        return gateway.directory.tenants[tenant]
    except RequestError as problem:
        gateway.metrics.rejected(None, problem.code or "unknown")
        raise


def _answer_errors(app: "FastAPI") -> None:
    """Every error in the shape of its API, also those of the router."""
    from fastapi import Request, Response
    from starlette.exceptions import HTTPException

    async def on_request_error(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, RequestError)
        body = body_for(problem, request.scope["path"])
        return Response(body, problem.status, problem.headers, "application/json")

    async def on_http_error(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)
        return await on_request_error(request, _as_request_error(problem.status_code, problem.headers))

    async def on_mistake(request: Request, _: Exception) -> Response:
        return await on_request_error(request, error("internal_error"))

    app.add_exception_handler(Exception, on_mistake)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(HTTPException, on_http_error)


def _as_request_error(status: int, headers: Mapping[str, str] | None) -> RequestError:
    name = {404: "unknown_route", 405: "method_not_allowed"}.get(status, "internal_error")
    return error(name, headers={name.lower(): value for name, value in (headers or {}).items()})
