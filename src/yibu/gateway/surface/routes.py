"""The documented surface, FastAPI's: models, health, metrics, documentation pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import (
    get_redoc_html,
    get_swagger_ui_html,
)
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from yibu.errors import RequestError, YibuError
from yibu.gateway.access import AUTHORIZED, CALLER, allow, check_declared
from yibu.gateway.console.answers import as_request_error
from yibu.gateway.console.deploying import add_deploying
from yibu.gateway.console.events import add_events
from yibu.gateway.console.keys import add_keys
from yibu.gateway.console.logs import add_logs
from yibu.gateway.console.overview import add_overview
from yibu.gateway.console.pages import add_pages
from yibu.gateway.envelope import (
    MethodNotAllowedError,
    NoSuchPathError,
    error_body,
    error_headers,
)
from yibu.gateway.limits import visible
from yibu.gateway.ollama.inventory import add_inventory
from yibu.gateway.operations import dialect_of, right_path
from yibu.gateway.schemas.answers import (
    Health,
    Readiness,
)
from yibu.gateway.surface.models import ANTHROPIC_HEADER, add_models
from yibu.gateway.surface.openapi import DESCRIPTION, document
from yibu.gateway.surface.tokenizer import add_tokenizer_info
from yibu.gateway.surface.usage import add_usage
from yibu.messages import accepted
from yibu.prometheus import CONTENT_TYPE
from yibu.routing import Backend

if TYPE_CHECKING:
    from yibu.accounts.live import Caller
    from yibu.gateway.console.console import Console
    from yibu.gateway.deps import GatewayDeps

STATIC = Path(__file__).with_name("static")

_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""The documentation pages load nothing from elsewhere, whatever their scripts try."""

_READY = frozenset({"ready", "draining", "sleeping", "unloaded"})
"""States of models that answer: one that is unloaded or sleeps is loaded for the request."""


def create_surface(
    deps: GatewayDeps,
    metrics: Callable[[Caller], Awaitable[str]],
    draining: Callable[[], bool],
    console: Console,
) -> FastAPI:
    """The FastAPI application behind the hot path; its OpenAPI document covers both.

    ``metrics`` gives the page of that name, for a caller.
    """
    app = FastAPI(
        title="yibu",
        version=deps.version,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # the gateway takes a path with and without one
    )
    _errors(app)
    add_models(app, deps.backend)
    _health(app, deps.backend, draining)
    _metrics(app, metrics)
    _pages(app)
    add_usage(app, deps.accounts)
    add_inventory(app, deps.backend, deps.version)
    add_tokenizer_info(app, deps.backend)
    _console(app, console)
    check_declared(app)
    written: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not written:
            written.update(document(app))
        return written

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _console(app: FastAPI, console: Console) -> None:
    """Add the console's page and API; docs/console.md describes them, the OpenAPI document does not."""
    router = APIRouter(include_in_schema=False)
    for add in (add_pages, add_overview, add_events, add_deploying, add_logs, add_keys):
        add(router, console)
    app.router.routes.extend(router.routes)


def _errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        headers = {name.decode(): value.decode() for name, value in error_headers(error)}
        anthropic = ANTHROPIC_HEADER in request.headers
        dialect = "anthropic" if anthropic else dialect_of(request.url.path)
        language = accepted(request.headers.get("accept-language", ""))
        body = error_body(error, dialect, language=language)
        return Response(body, error.status, headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 405:
            answer = MethodNotAllowedError(
                "{path} does not take {method}", path=path, method=request.method
            )
        else:
            answer = NoSuchPathError("There is no {path} here", path=path, hint=right_path(path))  # type: ignore[assignment]
        response = await refused(request, answer)
        response.headers.update(error.headers or {})
        return response

    async def node_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, YibuError)
        return await refused(request, as_request_error(error))

    app.add_exception_handler(YibuError, node_refused)
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(HTTPException, http)


def _health(app: FastAPI, backend: Backend, draining: Callable[[], bool]) -> None:
    @app.get("/health", include_in_schema=False, openapi_extra=allow("open"))
    @app.get(
        "/healthz", tags=["health"], summary="Is the gateway alive", openapi_extra=allow("open")
    )
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Can every model serve; names the models to holders of a key",
        openapi_extra=allow("open"),
        responses={503: {"model": Readiness}},
    )
    async def readyz(request: Request) -> JSONResponse:
        ready = not draining() and all(route.state in _READY for route in backend.routes())
        status: Literal["ready", "not ready", "draining"] = (
            "ready" if ready else "draining" if draining() else "not ready"
        )
        seen = visible(backend, request.scope[CALLER])
        models = {route.model: route.state for route in seen.routes()}
        answer = Readiness(status=status, models=models if request.scope[AUTHORIZED] else None)
        return JSONResponse(answer.model_dump(exclude_none=True), status_code=200 if ready else 503)


def _metrics(app: FastAPI, page: Callable[[Caller], Awaitable[str]]) -> None:
    @app.get(
        "/metrics",
        tags=["health"],
        summary="Numbers for Prometheus: the gateway's, and the engines' own",
        response_class=PlainTextResponse,
        openapi_extra=allow("key"),
    )
    async def numbers(request: Request) -> Response:
        return Response(await page(request.scope[CALLER]), media_type=CONTENT_TYPE)


def _pages(app: FastAPI) -> None:
    def page(response: HTMLResponse) -> HTMLResponse:
        response.headers["content-security-policy"] = _PAGE_POLICY
        return response

    files = StaticFiles(directory=STATIC)

    @app.get("/static/{path:path}", include_in_schema=False, openapi_extra=allow("open"))
    async def static(path: str, request: Request) -> Response:
        return await files.get_response(path, request.scope)

    @app.get("/openapi.json", include_in_schema=False, openapi_extra=allow("open"))
    async def openapi_document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False, openapi_extra=allow("open"))
    async def swagger() -> HTMLResponse:
        return page(
            get_swagger_ui_html(
                openapi_url="/openapi.json",
                title="yibu",
                swagger_js_url="/static/swagger-ui-bundle.js",
                swagger_css_url="/static/swagger-ui.css",
                swagger_favicon_url="/static/favicon.png",
            )
        )

    @app.get("/redoc", include_in_schema=False, openapi_extra=allow("open"))
    async def redoc() -> HTMLResponse:
        return page(
            get_redoc_html(
                openapi_url="/openapi.json",
                title="yibu",
                redoc_js_url="/static/redoc.standalone.js",
                redoc_favicon_url="/static/favicon.png",
                with_google_fonts=False,
            )
        )
