"""The ASGI application: routes, key, errors, and a log line a request."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yibu.errors import InvalidRequestError, RequestError, UnauthorizedError, UnknownModelError
from yibu.messages import accepted
from yibu.speech.answers.responses import CLIENT_GONE, ClientGoneError, as_refusal, error_answer
from yibu.speech.engine import SpeechEngine
from yibu.speech.http.routes import routes
from yibu.speech.live.routes import KEY_PROTOCOL, foreign_origin
from yibu.speech.metrics import SpeechMetrics
from yibu.speech.settings import KEY_VARIABLE

log = logging.getLogger(__name__)

_OPEN_PATHS = frozenset({"/health"})
"""Paths answered without the key: they tell only whether the engine is up."""


def create_app(engine: SpeechEngine, stop: Callable[[], None]) -> ASGIApp:
    """The application of one engine; ``stop`` ends the server when the engine ends by itself."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        async with engine.running(stop):
            yield

    def refuse(request: Request, error: Exception) -> Response:
        answer = _as_request_error(request, error)
        if answer.status == 429:
            engine.metrics.rejected.add()
        plain = request.url.path.startswith("/recognize")
        language = accepted(request.headers.get("accept-language", ""))
        return error_answer(answer, plain=plain, language=language)

    app = Starlette(
        routes=routes(engine),
        lifespan=lifespan,
        exception_handlers={RequestError: refuse, HTTPException: refuse, Exception: refuse},
    )
    app.router.redirect_slashes = False  # a POST is not repeated by every client
    return Edge(app, engine.settings.key, engine.metrics)


def _as_request_error(request: Request, error: Exception) -> RequestError:
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            wrong = InvalidRequestError(
                "{method} is not a method of {url_path}",
                method=request.method,
                url_path=request.url.path,
            )
            wrong.status = 405
            return wrong
        return UnknownModelError(
            "There is no path {url_path} here", url_path=request.url.path, code="unknown_path"
        )
    return as_refusal(error)


class Edge:
    """The outermost layer: checks the key, counts, logs, and handles clients that leave."""

    def __init__(self, app: ASGIApp, key: str | None, metrics: SpeechMetrics) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode() if key else None
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._admits(scope):
                await self._app(scope, receive, observed)
            else:
                refusal = UnauthorizedError(
                    "The key is missing or wrong: send it as Authorization: Bearer KEY"
                )
                await error_answer(refusal)(scope, receive, observed)
        except (ClientGoneError, ClientDisconnect):
            status = CLIENT_GONE
            self._metrics.disconnects.add()
        finally:
            self._count(scope, status or 500, time.monotonic() - started)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a websocket's key; a refusal is an HTTP response to the handshake."""
        refusal: RequestError | None = None
        if not self._admits(scope):
            refusal = UnauthorizedError(
                "The key is missing or wrong: send it as Authorization: Bearer KEY, or "
                "as the subprotocol {protocol}KEY",
                protocol=KEY_PROTOCOL,
            )
        elif self._expected is None and (origin := foreign_origin(scope)) is not None:
            refusal = UnauthorizedError(
                "A web page of {origin} may not use this server, which asks for no key: "
                "set {variable}, or serve it through the gateway",
                origin=origin,
                variable=KEY_VARIABLE,
                code="origin_not_allowed",
            )
        started = time.monotonic()
        if refusal is not None:
            await error_answer(refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
        log.info("WEBSOCKET %s %.3fs", scope["path"], time.monotonic() - started)

    def _admits(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in _OPEN_PATHS:
            return True
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        for protocol in scope.get("subprotocols", ()):
            if not sent and protocol.startswith(KEY_PROTOCOL):
                sent = b"Bearer " + protocol.removeprefix(KEY_PROTOCOL).encode()
        return hmac.compare_digest(sent, self._expected)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = route.path if route is not None else "other"
        self._metrics.requests.add(route=path, status=str(status))
        if scope["method"] == "POST":
            self._metrics.request_time.observe(seconds)
            log.info("%s %s %d %.3fs", scope["method"], scope["path"], status, seconds)
