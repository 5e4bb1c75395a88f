"""``create_app``: the gateway as one ASGI application.

A request for an engine takes the hot path (``proxy``); everything else, the documented surface,
is FastAPI's (``surface``).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from yibu import descriptors
from yibu.accounts.live import ANYBODY, Caller
from yibu.config import GatewayConfig
from yibu.config.keys import is_loopback
from yibu.errors import NotReadyError, RequestError, UnauthorizedError
from yibu.gateway.access import ADMIT, AUTHORIZED, CALLER, EXCHANGE, Access, access_of
from yibu.gateway.console.access import admit, guard
from yibu.gateway.console.console import Console
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.envelope import MethodNotAllowedError, UpgradeRequiredError, shutting_down
from yibu.gateway.http.access_log import record
from yibu.gateway.http.cors import Cors
from yibu.gateway.http.exchange import (
    CLIENT_GONE,
    ClientGoneError,
    Exchange,
    Receive,
    Scope,
    Send,
)
from yibu.gateway.http.hosts import HostCheck
from yibu.gateway.keys import KeyRing
from yibu.gateway.limits import Accounting
from yibu.gateway.live.routes import LIVE_ROUTES
from yibu.gateway.live.sessions import LiveSessions
from yibu.gateway.monitoring.fleet_metrics import fleet_lines
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.gateway.monitoring.scrape import EngineMetrics
from yibu.gateway.ollama.translation import TRANSLATIONS, PathTranslation, translate
from yibu.gateway.operations import OPERATIONS, SURFACE_PATHS, Operation, canonical, dialect_of
from yibu.gateway.proxy.proxy import RequestProxy
from yibu.gateway.proxy.uploads import upload
from yibu.gateway.requests.offload import OffloadProcess
from yibu.gateway.saved import FILE as SAVED_FILE
from yibu.gateway.saved import Saved
from yibu.gateway.sessions import Authentication, ForbiddenError, Sessions
from yibu.upstream.pool import Pool

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger("yibu.gateway")

_TRACED = frozenset({*OPERATIONS, *TRANSLATIONS})
"""Paths whose requests have traces: those that engines answer."""


class InternalError(RequestError):
    """A fault of the gateway's own; the log has the cause."""

    default_code = "internal_error"


class Gateway:
    """The ASGI application. ``drain`` refuses new requests; ``aclose`` ends what is left."""

    def __init__(self, deps: GatewayDeps) -> None:
        """Raises ConfigError where its settings cannot be used."""
        self.deps = deps
        self.config = deps.config
        """The current settings; ``configure`` changes them."""
        self.metrics = GatewayMetrics()
        self.pool = Pool(deps.config.request_timeout)
        self.draining = False
        self.leaving = False
        """Whether another process accepts connections by now: each answer is its connection's last."""
        self._engines = EngineMetrics(deps.backend)
        keys = KeyRing(deps.keys, deps.accounts, deps.own_key)
        manager = deps.manager
        saved = Saved(manager.directories["state"] / SAVED_FILE if manager else None)
        self._authentication = Authentication(keys, Sessions(keys, saved))
        self._cors = Cors(deps.config.cors_origins)
        self._hosts = HostCheck(deps.config.hosts)
        self.offload = OffloadProcess()
        self.accounting = Accounting(deps.accounts, deps.backend.route)
        self._proxy = RequestProxy(
            deps.backend, self.pool, self.metrics, self.offload, self.accounting
        )
        self._live = LiveSessions(
            deps.backend,
            lambda: self.config,
            self.metrics,
            self.accounting,
            self._authentication,
            self._cors,
            self._hosts,
        )
        self.console = Console(deps, self._authentication, self.metrics, self._is_ending)
        self._surface: FastAPI | None = None
        self._building = threading.Lock()

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, or may be."""
        return self._authentication.keys.has_some

    def configure(self, config: GatewayConfig, digests: Sequence[str]) -> None:
        """Serve by other settings, and accept the keys with these digests, from the next request on; a
        request that has begun goes on by those that it began with.

        Raises:
            ConfigError: an origin cannot be used; nothing has changed.
        """
        self._cors.configure(config.cors_origins)
        self._hosts.configure(config.hosts)
        self._authentication.keys.configure(digests, exposed=not is_loopback(config.host))
        self.pool.timeout = config.request_timeout
        self.config = config

    def surface(self) -> FastAPI:
        """The documented surface, built at the first call.

        FastAPI takes half a second to import, which nobody should wait for while a model starts:
        call this in a thread once there is time. Requests that come earlier do.
        """
        with self._building:
            if self._surface is None:
                from yibu.gateway.surface.routes import create_surface

                self._surface = create_surface(
                    self.deps, self._page, lambda: self.draining, self.console
                )
            return self._surface

    def _is_ending(self) -> bool:
        return self.draining or self.leaving

    def drain(self) -> None:
        """Answer new requests with 503, and end live sessions, which have no end of their own."""
        self.draining = True
        self._live.drain()

    async def aclose(self) -> None:
        """Close the connections to the engines and the gateway's helpers."""
        await self._engines.aclose()
        await self.offload.aclose()
        self.pool.close()

    async def _page(self, caller: Caller) -> str:
        """The metrics page: everything for operators, for others what their key did."""
        if not (caller is ANYBODY or caller.configured or caller.admin):
            return self.metrics.render_own(caller.name)
        node = [] if self.deps.node is None else await self.deps.node.lines()
        own = self.metrics.render([*fleet_lines(self.deps.backend), *node])
        return await self._engines.page(own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._live.serve(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        exchange.cors = self._cors.headers(exchange.headers.get(b"origin"))
        self.metrics.in_flight += 1
        tracing = self.deps.tracing
        if tracing is not None and canonical(exchange.path) in _TRACED:
            exchange.trace = tracing.begin(exchange)
        try:
            await self._answer(exchange)
        except RequestError as error:
            await exchange.refuse(error)
        except (asyncio.CancelledError, ClientGoneError) as error:
            exchange.status = CLIENT_GONE
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001  (one request's fault is answered and logged)
            await exchange.refuse(_failure(exchange, error))
        finally:
            self.metrics.in_flight -= 1
            self.accounting.settle(exchange)
            record(exchange, self.metrics)
            if exchange.trace is not None:
                exchange.trace.end(gone=exchange.status == CLIENT_GONE)

    async def _answer(self, exchange: Exchange) -> None:
        exchange.require_single_headers()
        if not self._authentication.keys.closed:
            self._hosts.check(exchange.headers.get(b"host"))
        exchange.closing = self.draining or self.leaving
        if self.draining and exchange.path not in {"/health", "/healthz", "/readyz", "/metrics"}:
            raise shutting_down()
        if exchange.method == "OPTIONS" and await self._cors.answer_options(exchange):
            return
        exchange.require_plain_body()
        path = canonical(exchange.path)
        translation = TRANSLATIONS.get(path)
        operation = OPERATIONS.get(path)
        if translation is not None:
            operation = await self._translated(exchange, path, translation)
            if operation is None:
                return
        elif operation is None:
            live = LIVE_ROUTES.get(path)
            if live is not None:
                self._authorize(exchange, live.access)
                raise UpgradeRequiredError("{path} is a websocket's: write ws://", path=path)
            await self._answer_by_surface(exchange, path)
            return
        else:
            exchange.dialect = operation.dialect
            self._accept(exchange, path, operation.access)
        config = self.config
        if operation.schema is not None:
            await self._proxy.json(exchange, operation, config.max_body)
        else:
            await upload(self._proxy, self.deps.backend, exchange, operation, config.max_upload)

    def _accept(self, exchange: Exchange, path: str, access: Access) -> None:
        """Raises RequestError: no key, or no POST."""
        self._authorize(exchange, access)
        exchange.label = path
        if exchange.method != "POST":
            raise MethodNotAllowedError(
                "{path} takes POST, not {method}", path=path, method=exchange.method
            )
        self._cors.check_site(exchange)

    async def _translated(
        self, exchange: Exchange, path: str, translation: PathTranslation
    ) -> Operation | None:
        """The operation that a request of Ollama's API was translated to; None when it is answered
        already."""
        exchange.dialect = dialect_of(path)
        self._accept(exchange, path, translation.access)
        limit, admit = self.config.max_body, self.accounting.admit
        target = await translate(exchange, path, self.deps.backend, limit, self.offload, admit)
        return None if target is None else OPERATIONS[target]

    async def _answer_by_surface(self, exchange: Exchange, path: str) -> None:
        """Answer models, health, metrics, pages; and 404 for what does not exist."""
        exchange.label = path if path in SURFACE_PATHS else "other"
        exchange.dialect = dialect_of(path)
        surface = self._surface
        if surface is None:
            surface = await asyncio.to_thread(self.surface)
        head = exchange.method == "HEAD"
        method = "GET" if head else exchange.method
        scope = {**exchange.scope, "path": path, "raw_path": path.encode(), "method": method}
        access = access_of(surface, scope)
        if path.startswith("/console/"):
            guard(exchange, path)
        if access == "console":
            exchange.caller = await admit(exchange, self._authentication)
            exchange.key, authorized = exchange.caller.name, True
        else:
            authorized = self._authorize(exchange, access)
        scope[AUTHORIZED], scope[CALLER] = authorized, exchange.caller
        scope[EXCHANGE] = exchange
        scope[ADMIT] = partial(self.accounting.admit, exchange)
        receive = partial(exchange.receive_at_most, self.config.max_body)
        await surface(scope, receive, exchange.head_send if head else exchange.surface_send)

    def _authorize(self, exchange: Exchange, access: Access) -> bool:
        """Whether the request has a key, or needs none; notes which.

        Raises:
            UnauthorizedError: the route asks for a key that the request does not have.
        """
        try:
            caller = self._authentication.check(exchange.method, exchange.headers)
        except (UnauthorizedError, NotReadyError, ForbiddenError):
            if access != "open":
                raise
            return False
        exchange.caller, exchange.key = caller, caller.name
        if access == "admin" and not caller.admin:
            raise UnauthorizedError(
                "This needs an admin's API key",
                hint="yibu key add NAME --admin makes one; on the node's machine the command "
                "line needs none",
            )
        return True


def _failure(exchange: Exchange, error: Exception) -> RequestError:
    """What the client of a request is told that met a fault of the gateway's, which is logged."""
    number = exchange.request_id.decode()
    if descriptors.exhausted(error):
        logger.error("request %s failed: %s", number, error)
        return NotReadyError(
            "The gateway cannot open any more files",
            code="out_of_resources",
            hint="Raise the limit of its process or its machine: ulimit -n, fs.file-max",
            retry_after=1,
        )
    logger.error("request %s failed", number, exc_info=error)
    return InternalError("The gateway failed; its log has the cause")


def create_app(deps: GatewayDeps) -> Gateway:
    """The gateway over ``deps.backend``, for a ``GatewayServer``: it relies on the server to cancel a
    request whose client leaves."""
    return Gateway(deps)
