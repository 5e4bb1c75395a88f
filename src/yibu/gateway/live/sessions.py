"""Websocket sessions: checked like any request, then relayed to a replica.

Messages pass as they are; the engine's reports of how much it heard (``yibu.usage``) stop here. Both ends
are framed by their libraries. A session lives and ends with its replica: what it said last is in that
replica's memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import orjson

from yibu.errors import (
    EngineGoneError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
)
from yibu.gateway.envelope import NoSuchPathError, engine_gone, shutting_down
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
from yibu.gateway.limits import Accounting, visible
from yibu.gateway.live.handshake import keys_of, open_engine, refusal, refusing, unless_gone
from yibu.gateway.live.routes import FUNASR, LIVE_ROUTES, LiveRoute
from yibu.gateway.monitoring.metrics import GatewayMetrics
from yibu.gateway.operations import find_route, only_route
from yibu.gateway.sessions import Authentication
from yibu.routing import Backend, Lease, Route
from yibu.upstream.connection import UpstreamError
from yibu.upstream.websocket import ClosedError, EngineSocket, HandshakeRefusedError

if TYPE_CHECKING:
    from yibu.config import GatewayConfig

logger = logging.getLogger("yibu.gateway")

FUNASR_PORT = "funasr"
"""In a connection's state: it came in on FunASR's port, where every path is FunASR's protocol."""
_USAGE = '{"type":"yibu.usage"'
_GOING_AWAY, _POLICY, _FAULT, _RESTART = 1001, 1008, 1011, 1012
_SWITCHING = 101
_REASON_BYTES = 120
"""Bytes of a close reason; a frame has room for 123."""


class SessionIdleError(InvalidRequestError):
    """The client of a live session sent nothing for gateway.idle_timeout."""

    default_code = "session_idle"


class AudioLimitError(OverloadedError):
    """A live session has received gateway.max_live_audio seconds."""

    default_code = "audio_limit_reached"
    should_retry = False


class LiveSessions:
    """Serves websocket scopes. ``drain`` ends those that are open, with 1012."""

    def __init__(
        self,
        backend: Backend,
        config: Callable[[], GatewayConfig],
        metrics: GatewayMetrics,
        accounting: Accounting,
        authentication: Authentication,
        cors: Cors,
        hosts: HostCheck,
    ) -> None:
        """``config`` returns the current settings."""
        self._backend, self._config, self._metrics = backend, config, metrics
        self._accounting, self._authentication = accounting, authentication
        self._cors, self._hosts = cors, hosts
        self._draining = asyncio.Event()

    def drain(self) -> None:
        self._draining.set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one handshake, and relay the session until either side ends it."""
        await receive()  # websocket.connect
        exchange = Exchange({**scope, "method": "GET"}, receive, refusing(send))
        self._metrics.in_flight += 1
        try:
            await self._session(exchange, send)
        except RequestError as error:
            await exchange.refuse(error)
        except (OSError, ClientGoneError):  # uvicorn raises OSError when the client has gone
            exchange.status = exchange.status or CLIENT_GONE
        except asyncio.CancelledError:
            exchange.status = exchange.status or CLIENT_GONE
            raise
        except Exception:  # the gateway must go on: one session's fault ends it alone
            logger.exception("live session %s failed", exchange.request_id.decode())
            raise
        finally:
            self._metrics.in_flight -= 1
            self._accounting.settle(exchange)
            record(exchange, self._metrics)

    async def _session(self, exchange: Exchange, send: Send) -> None:
        live = self._accept(exchange)
        given = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1")))
        models = visible(self._backend, exchange.caller)
        named = given.get("model")
        operation = live.operation
        route = find_route(models, named, operation) if named else only_route(models, operation)
        await self._accounting.admit(exchange, route, named or route.model)
        lease, engine = await unless_gone(exchange, self._connect(exchange, live, route, given))
        failed = False
        exchange.working_since = perf_counter()
        try:
            headers = [(b"x-request-id", exchange.request_id), *(exchange.limits or [])]
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": engine.subprotocol,
                    "headers": headers,
                }
            )
            exchange.status = _SWITCHING

            def heard(seconds: float) -> None:
                exchange.audio_seconds = seconds

            relay = _Relay(
                live, exchange, engine, send, self._config, self._draining, lease.progress, heard
            )
            with self._accounting.going_on(exchange):
                failed = await relay.run()
            exchange.failed = failed
        finally:
            engine.close()
            exchange.rest()
            lease.release(failed=failed)

    def _accept(self, exchange: Exchange) -> LiveRoute:
        """Check the caller; returns the session's protocol.

        Raises:
            RequestError: it is refused.
        """
        exchange.require_single_headers()
        if not self._authentication.keys.closed:
            self._hosts.check(exchange.headers.get(b"host"))
        if self._draining.is_set():
            raise shutting_down()
        exchange.cors = self._cors.headers(exchange.headers.get(b"origin"))
        caller = self._authentication.check("GET", exchange.headers, keys_of(exchange))
        exchange.caller, exchange.key = caller, caller.name
        self._cors.check_site(exchange)
        path = exchange.path if len(exchange.path) < 2 else exchange.path.rstrip("/")
        funasr = exchange.scope.get("state", {}).get(FUNASR_PORT, False)
        live = FUNASR if funasr and path not in LIVE_ROUTES else LIVE_ROUTES.get(path)
        if live is None:
            raise NoSuchPathError(
                "There is no websocket at {exchange_path!r}",
                exchange_path=exchange.path[:200],
                paths=", ".join(LIVE_ROUTES),
                hint="Those that exist: {paths}",
            )
        exchange.label = live.path
        return live

    async def _connect(
        self, exchange: Exchange, live: LiveRoute, route: Route, given: Mapping[str, str]
    ) -> tuple[Lease, EngineSocket]:
        """A replica and a websocket to it; another one where the first cannot be reached."""
        failure: RequestError | None = None
        exclude: frozenset[str] = frozenset()
        while True:
            try:
                caller = exchange.caller
                lease = self._backend.acquire(
                    route.model,
                    key=caller.name,
                    priority=caller.priority,
                    weight=caller.weight,
                    exclude=exclude,
                )
                if lease.waits:
                    await self._metrics.waited(route.model, lease.granted())
            except NotReadyError:
                if failure is not None:
                    raise failure from None
                raise
            endpoint = lease.endpoint
            exchange.replica = endpoint.replica
            try:
                return lease, await open_engine(exchange, live, route, endpoint, given)
            except UpstreamError as error:
                lease.release(failed=True)
                self._metrics.upstream_errors[(route.model, error.kind)] += 1
                failure = engine_gone(error, route.model)
                if exclude:
                    raise failure from error
            except HandshakeRefusedError as error:
                lease.release()
                raise refusal(error, route.model) from error
            except BaseException:  # the replica's request must not be counted for ever
                lease.release()
                raise
            exclude = exclude | {endpoint.replica}


class _Relay:
    """One open session: two tasks, one each way."""

    def __init__(
        self,
        live: LiveRoute,
        exchange: Exchange,
        engine: EngineSocket,
        send: Send,
        config: Callable[[], GatewayConfig],
        draining: asyncio.Event,
        progressed: Callable[[], None],
        heard: Callable[[float], None],
    ) -> None:
        """``heard`` is told the seconds of audio so far, each second of them."""
        self._live, self._exchange, self._engine = live, exchange, engine
        self._send, self._config, self._draining = send, config, draining
        self._progressed, self._heard = progressed, heard

    async def run(self) -> bool:
        """Relay messages until the session ends; whether the replica failed."""
        ways = [
            asyncio.create_task(self._from_client(), name="live client"),
            asyncio.create_task(self._from_engine(), name="live engine"),
            asyncio.create_task(self._until_drained(), name="live drain"),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            ended = next((task for task in ways if task in done and task is not ways[0]), ways[0])
            return ended.result()
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _from_client(self) -> bool:
        while True:
            idle = self._config().idle_timeout
            try:
                message = await asyncio.wait_for(self._exchange.receive(), idle)
            except TimeoutError:
                error = SessionIdleError(
                    "The session is closed: nothing came for {idle:g} s",
                    idle=idle,
                    hint="gateway.idle_timeout in yibu.yaml sets the limit",
                )
                await self._close(_GOING_AWAY, error)
                return False
            if message["type"] == "websocket.disconnect":
                return False
            text, data = message.get("text"), message.get("bytes")
            content: str | bytes = text if text is not None else data or b""
            self._exchange.bytes_in += len(content)
            try:
                await self._engine.send(content)
            except ClosedError:
                await asyncio.Event().wait()  # the other way says how it ended

    async def _from_engine(self) -> bool:
        while True:
            try:
                message = await self._engine.receive()
            except ClosedError as closed:
                return await self._engine_closed(closed)
            self._progressed()
            if isinstance(message, str) and message.startswith(_USAGE):
                self._heard(float(orjson.loads(message)["audio_seconds"]))
                limit = self._config().max_live_audio
                if limit is not None and self._exchange.audio_seconds > limit:
                    error = AudioLimitError(
                        "The session has heard {limit:g} s of audio, the limit of this gateway",
                        limit=limit,
                        hint="gateway.max_live_audio in yibu.yaml sets it; open another session",
                    )
                    await self._close(_POLICY, error)
                    return False
                continue
            await self._to_client(message)

    async def _to_client(self, message: str | bytes) -> None:
        self._exchange.bytes_out += len(message)
        kind = "text" if isinstance(message, str) else "bytes"
        await self._send({"type": "websocket.send", kind: message})

    async def _engine_closed(self, closed: ClosedError) -> bool:
        """1000, 1001 and the like are the engine's word on this session; the rest is its end."""
        if closed.code < _FAULT and closed.code not in (1005, 1006):
            await self._close(closed.code, None, closed.reason)
            return False
        model = self._exchange.model
        error = EngineGoneError(
            "Model {model!r}: its engine has gone, and the session with it",
            model=model,
            hint="Open another one; see why: yibu logs {model}",
        )
        await self._close(_FAULT, error)
        return closed.code != _RESTART

    async def _until_drained(self) -> bool:
        await self._draining.wait()
        await self._close(_RESTART, shutting_down())
        return False

    async def _close(self, code: int, error: RequestError | None, reason: str = "") -> None:
        with suppress(RuntimeError):  # the client has closed it meanwhile
            if error is not None:
                await self._to_client(orjson.dumps(self._live.error(error)).decode())
                reason = error.message.encode()[:_REASON_BYTES].decode(errors="ignore")
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
